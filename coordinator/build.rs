//! `sqlx::migrate!` embeds the folder when the crate is compiled; cargo must look at it again when it changes.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/coordinator");
}
