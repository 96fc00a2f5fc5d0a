//! The link recipe, which makes the same bytes from the same spec on every worker with the same toolchain.
//!
//! In an empty folder, with exactly these names, all given to the compiler as relative paths (they end up in the symbol table):
//!
//! 1. `weights.bin`, `section_bytes` long and zero: each of `copies` copies from the weights blob, each of `packs` writes what its pack function makes of
//!    its slices of the blob (`<symbol>_pack(const void *const *weight, void *packed, const int64_t *tune)` from `source`, compiled
//!    for the linking host with `-DAOTK_PACK_ONLY`, run where it can do no harm).
//! 2. `weights.S` with the text of [`weights_assembly`], `artifact.map` with the text of [`VERSION_SCRIPT`], `glue.c` with the
//!    glue, and the kernel objects as `k0000.o`, `k0001.o` … in the order of `objects`. For a CUDA target the objects are cubins: `k0000.cubin`,
//!    `k0001.cubin` …, and `cubins.S` has the text of [`cubins_assembly`].
//! 3. Compile `glue.c` with [`GLUE_FLAGS`] (after the usual ones: it must run on any CPU of the architecture, because it is what tells the user that this one
//!    lacks an instruction set) and assemble `weights.S`, and `cubins.S` if there is one.
//! 4. Link `glue.o k0000.o … weights.o` in this order, for a CUDA target `glue.o cubins.o weights.o`, with [`LINK_FLAGS`], the libraries last.
//!
//! The result exports `aotfarm_model` alone, needs at most libc, libm, libpthread, libdl and the loader, and holds no path, time or build id. For a
//! CUDA target it is for the architecture of the host that links it.

use sha2::{Digest as _, Sha256};

/// Flags that compile the glue of an artifact, by architecture in the words of `uname -m`.
pub const GLUE_FLAGS: &[(&str, &[&str])] = &[
    ("x86_64", &["-O2", "-fPIC", "-fvisibility=hidden", "-march=x86-64", "-mtune=generic"]),
    ("aarch64", &["-O2", "-fPIC", "-fvisibility=hidden", "-march=armv8-a", "-mtune=generic"]),
];

/// Flags that link the objects of an artifact; the libraries go after the objects.
pub const LINK_FLAGS: &[&str] = &[
    "-shared",
    "-Wl,--version-script=artifact.map",
    "-Wl,--build-id=none",
    "-Wl,--hash-style=gnu",
    "-Wl,-z,noexecstack",
    "-Wl,-z,relro",
    "-Wl,-z,now",
    "-Wl,-z,defs",
    "-Wl,--as-needed",
];

/// The libraries that an artifact may need.
pub const LINK_LIBRARIES: &[&str] = &["-lm", "-lpthread", "-ldl"];

/// Makes `aotfarm_model` the only symbol that an artifact exports.
pub const VERSION_SCRIPT: &str = "{ global: aotfarm_model; local: *; };\n";

/// From this size on a weight section begins at a multiple of [`HUGE_PAGE`].
const HUGE_SECTION: u64 = 4 * HUGE_PAGE;

/// Bytes of a huge page on x86-64, and on aarch64 with small pages of 4 KiB.
pub const HUGE_PAGE: u64 = 2 << 20;

/// Assembly that puts `weights.bin`, of so many bytes, into a read-only, page-aligned section; the glue knows it as `aotfarm_weights`.
///
/// A large section is aligned so that the system can map it by huge pages, where its file lies in memory in such pieces: a first
/// inference then takes a fault for every 2 MiB, not for every 64 KiB.
pub fn weights_assembly(section_bytes: u64) -> String {
    let align = if section_bytes >= HUGE_SECTION { HUGE_PAGE } else { 4096 };
    format!(
        "    .section .rodata.aotfarm_weights,\"a\",%progbits
    .balign {align}
    .globl aotfarm_weights
    .hidden aotfarm_weights
    .type aotfarm_weights, %object
aotfarm_weights:
    .incbin \"weights.bin\"
    .size aotfarm_weights, . - aotfarm_weights
    .section .note.GNU-stack,\"\",%progbits
"
    )
}

/// The name under which the glue knows the `n`th cubin of [`cubins_assembly`].
pub fn cubin_symbol(n: usize) -> String {
    format!("aotfarm_cubin_{n:04}")
}

/// Assembly that puts `k0000.cubin`, `k0001.cubin` … into a read-only section.
pub fn cubins_assembly(count: usize) -> String {
    let mut text = "    .section .rodata.aotfarm_cubins,\"a\",%progbits\n".to_owned();
    for n in 0..count {
        let symbol = cubin_symbol(n);
        text += &format!(
            "    .balign 64
    .globl {symbol}
    .hidden {symbol}
    .type {symbol}, %object
{symbol}:
    .incbin \"k{n:04}.cubin\"
    .size {symbol}, . - {symbol}
"
        );
    }
    text + "    .section .note.GNU-stack,\"\",%progbits\n"
}

/// Raise it when the recipe changes in what is not one of the constants of this module: the order of steps, a file's name.
const RECIPE_VERSION: u32 = 1;

/// The digest (SHA-256) of the recipe: of every constant and text in it, each preceded by its length. Two programs whose
/// digests are equal link the same bytes from the same spec.
pub fn digest() -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    field(&RECIPE_VERSION.to_string());
    for (arch, flags) in GLUE_FLAGS {
        field(arch);
        flags.iter().for_each(|flag| field(flag));
    }
    for flag in [LINK_FLAGS, LINK_LIBRARIES, crate::cc::PACK, &[VERSION_SCRIPT]].concat() {
        field(flag);
    }
    // A small section, a large one, and what one cubin more adds.
    for text in [weights_assembly(0), weights_assembly(HUGE_SECTION), cubins_assembly(1), cubins_assembly(2)] {
        field(&text);
    }
    hash.finalize().into()
}
