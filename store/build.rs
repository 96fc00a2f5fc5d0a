//! `sqlx::migrate!` embeds the folders when the crate is compiled; cargo must look at them again
//! when they change.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
