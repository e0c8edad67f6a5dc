//! Shared support of the measurements.

use ocidiff_deflate::{WINDOW_BYTES, Window};

/// Returns a window full of this program's own machine code: made-up bytes compress like nothing real.
pub fn machine_code() -> Box<Window> {
    let program = std::env::current_exe().and_then(std::fs::read).expect("a program can read itself");
    let mut window = Box::new([0; size_of::<Window>()]);
    let start = program.len() / 4;
    window[..WINDOW_BYTES].copy_from_slice(&program[start..start + WINDOW_BYTES]);
    window
}
