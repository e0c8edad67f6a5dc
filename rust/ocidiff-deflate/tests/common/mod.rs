//! Inputs, and their streams.
#![allow(dead_code, clippy::unwrap_used)]

use ocidiff_deflate::{DICTIONARY_BYTES, Encoder, WINDOW_BYTES, Window};

/// The most bytes of a block.
pub const BLOCK: usize = WINDOW_BYTES - DICTIONARY_BYTES;

/// Returns an empty window.
pub fn window() -> Box<Window> {
    vec![0; size_of::<Window>()].into_boxed_slice().try_into().unwrap()
}

/// Encodes `data` in blocks of `block_bytes`, all by one encoder.
pub fn encode(encoder: &mut Encoder, data: &[u8], block_bytes: usize) -> Vec<u8> {
    let mut window = window();
    let mut encoded = Vec::new();
    let mut begin = 0;
    loop {
        let end = data.len().min(begin + block_bytes);
        let from = begin.saturating_sub(DICTIONARY_BYTES);
        window[..end - from].copy_from_slice(&data[from..end]);
        encoded.extend_from_slice(encoder.encode(&window, begin - from, end - from, end == data.len()));
        if end == data.len() {
            return encoded;
        }
        begin = end;
    }
}

/// Bytes of a simple generator: noise where `mask` is 255, and more alike the fewer bits it has.
pub fn noise(count: usize, mask: u8, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8 & mask
    };
    (0..count).map(|_| next()).collect()
}

/// Words again and again, at distances near and far, with noise between them.
pub fn mixture(count: usize) -> Vec<u8> {
    let words = noise(64 << 10, 0x3f, 7);
    let mut data = Vec::new();
    let mut turn = 0usize;
    while data.len() < count {
        turn += 1;
        let start = (turn * 7919) % (words.len() - 300);
        data.extend_from_slice(&words[start..start + 3 + turn % 280]);
        if turn.is_multiple_of(5) {
            data.extend_from_slice(&noise(turn % 90, 0xff, turn as u64));
        }
        if turn.is_multiple_of(17) {
            data.resize(data.len() + turn % 700, 0);
        }
    }
    data.truncate(count);
    data
}

/// Words, runs and noise.
pub fn seeded_mixture(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut content: Vec<u8> = Vec::new();
    while content.len() < count {
        let length = next(300) as usize + 1;
        match next(4) {
            0 => content.extend((0..length).map(|_| next(256) as u8)),
            1 => content.extend((0..length).map(|_| b'a' + (next(4) * next(5)) as u8)),
            _ if content.is_empty() => content.push(7),
            2 => {
                let distance = next(40.min(content.len() as u64)) as usize + 1;
                (0..length).for_each(|_| content.push(content[content.len() - distance]));
            }
            _ => {
                let distance = next(40_000.min(content.len() as u64)) as usize + 1;
                (0..length).for_each(|_| content.push(content[content.len() - distance]));
            }
        }
    }
    content.truncate(count);
    content
}
