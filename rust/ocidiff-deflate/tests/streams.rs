//! An independent decoder reads the encoder's streams, and nothing but the input decides their bytes.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;

use common::{BLOCK, encode, mixture, noise, window};
use flate2::read::DeflateDecoder;
use flate2::{Decompress, FlushDecompress};
use ocidiff_deflate::{DICTIONARY_BYTES, Encoder, Level, WINDOW_BYTES};
use proptest::prelude::*;

fn decode(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut decoder = DeflateDecoder::new(encoded);
    decoder.read_to_end(&mut decoded).unwrap();
    assert_eq!(decoder.total_in(), encoded.len() as u64, "nothing may follow the last block");
    decoded
}

/// The same, of printable bytes.
fn text(count: usize) -> Vec<u8> {
    mixture(count).iter().map(|byte| b'0' + byte % 64).collect()
}

/// Random words of one length, each followed by a space.
fn words(count: usize) -> Vec<u8> {
    let letters: Vec<_> = noise(64 * 6, 0x0f, 1).iter().map(|digit| b'a' + digit).collect();
    let words: Vec<_> = letters.chunks(6).map(|word| [word, b" "].concat()).collect();
    noise(count, 0x3f, 2).iter().flat_map(|&word| words[usize::from(word)].clone()).collect()
}

#[test]
fn the_highest_level_makes_random_words_smallest() {
    let words = words(60_000);
    let sizes = [6, 7, 8, 9].map(|level| encode(&mut Encoder::new(Level::new(level)), &words, BLOCK).len());
    assert_eq!(sizes.iter().min(), sizes.last(), "{sizes:?}");
}

#[test]
fn streams_decode_to_their_input_at_every_level() {
    let inputs = [
        vec![],
        vec![7],
        vec![0; 3 * BLOCK + 1],
        noise(2 * BLOCK + 77, 0xff, 1),
        noise(BLOCK, 0x03, 2),
        mixture(3 * BLOCK - 1),
        [noise(300_000, 0xff, 3), vec![b'x'; 100_000], mixture(200_000), noise(70_000, 0xff, 3)].concat(),
        (0..=255).cycle().take(100_000).collect(),
        text(2 * BLOCK + 5),
    ];
    for level in 1..=9 {
        let mut encoder = Encoder::new(Level::new(level));
        for input in &inputs {
            assert!(decode(&encode(&mut encoder, input, BLOCK)) == *input, "level {level}, {} bytes", input.len());
        }
    }
}

#[test]
fn an_encoder_remembers_nothing_of_earlier_blocks_and_looks_at_nothing_behind_the_block() {
    for (data, level) in [mixture(400_000), text(400_000)].iter().flat_map(|data| (1..=9).map(move |level| (data, level))) {
        let mut used = Encoder::new(Level::new(level));
        let mut dirty = window();
        for before in [b'x', 0xff] {
            dirty.fill(before);
            used.encode(&dirty, 0, WINDOW_BYTES, false);
        }
        dirty[..data.len()].copy_from_slice(data);
        let mut clean = window();
        clean[..data.len()].copy_from_slice(data);
        let fresh = Encoder::new(Level::new(level)).encode(&clean, 1000, data.len(), true).to_vec();
        assert!(used.encode(&dirty, 1000, data.len(), true) == fresh, "level {level}");
    }
}

#[test]
fn incompressible_input_hardly_grows() {
    let data = noise(4 * BLOCK, 0xff, 5);
    for level in 1..=9 {
        let encoded = encode(&mut Encoder::new(Level::new(level)), &data, BLOCK);
        assert!(encoded.len() <= data.len() + data.len() / 10_000 + 4 * 16, "level {level}: {}", encoded.len());
    }
}

#[test]
fn higher_levels_are_smaller() {
    let data = include_bytes!("../../../Cargo.lock").repeat(8);
    let data = [&data[..], &mixture(BLOCK), include_bytes!("../src/block.rs"), include_bytes!("../src/matches.rs")].concat();
    let sizes: Vec<usize> = (1..=9).map(|level| encode(&mut Encoder::new(Level::new(level)), &data, BLOCK).len()).collect();
    assert!([0, 2, 5, 8].map(|level| sizes[level]).is_sorted_by(|a, b| a > b), "{sizes:?}");
}

/// The bytes are a promise: these digests change only together with a line in the changelog.
#[test]
fn the_bytes_are_those_of_the_promise() {
    let data = [mixture(BLOCK + 12_345), noise(50_000, 0xff, 9), noise(90_000, 0x07, 9)].concat();
    let checksum = |level| {
        let mut encoded = encode(&mut Encoder::new(Level::new(level)), &data, BLOCK);
        encoded.extend(encode(&mut Encoder::new(Level::new(level)), &text(BLOCK + 12_345), BLOCK));
        // FNV-1a, which needs no library.
        encoded.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let found: Vec<u64> = (1..=9).map(checksum).collect();
    assert_eq!(found, GOLDEN, "{found:#x?}");
}

const GOLDEN: [u64; 9] = [
    0xfb38_7050_d932_60d8,
    0xa75b_dd29_c6d1_9c37,
    0xdfe9_748d_3f77_daef,
    0x281c_df0f_f452_e107,
    0xb98f_eaab_3bf0_df5b,
    0x8f08_e6d2_11ed_94b2,
    0x3140_368a_2f4d_e404,
    0xf125_d9db_bd63_b6bc,
    0x0bea_1ebf_d085_38c8,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Repeated words with few bytes changed, so that several candidates match up to the end of the block, and differ behind it.
    #[test]
    fn what_stands_behind_a_block_has_no_part_in_its_bytes(
        word in prop::collection::vec(0u8..4, 9..40),
        first in prop::sample::select(vec![0u8, b'a']),
        changes in prop::collection::vec((0usize..4000, 0u8..4), 0..60),
        start in 0usize..500,
        end in 1000usize..3000,
        level in 1..=9,
    ) {
        let mut data: Vec<u8> = word.iter().copied().cycle().take(4000).collect();
        changes.iter().for_each(|&(place, byte)| data[place] = byte);
        data.iter_mut().for_each(|byte| *byte += first);
        let encode = |behind: &dyn Fn(usize) -> u8| {
            let mut window = window();
            window[..data.len()].copy_from_slice(&data);
            (end..data.len()).for_each(|at| window[at] = behind(at));
            Encoder::new(Level::new(level)).encode(&window, start, end, false).to_vec()
        };
        let clean = encode(&|_| 0);
        prop_assert!(clean == encode(&|at| data[at]));
        prop_assert!(clean == encode(&|at| data[at - 1]));
    }

    #[test]
    fn any_pieces_decode_to_their_input(
        pieces in prop::collection::vec((any::<u64>(), 0usize..3000, prop::sample::select(vec![0u8, 1, 3, 0x1f, 0xff]), any::<bool>()), 0..20),
        is_text in any::<bool>(),
        level in 1..=9,
        block_bytes in 1usize..9000,
    ) {
        let mut data = Vec::new();
        for (seed, count, mask, again) in pieces {
            if again {
                let from = data.len().saturating_sub(count);
                data.extend_from_within(from..);
            } else {
                data.extend_from_slice(&noise(count, mask, seed));
            }
        }
        if is_text {
            data.iter_mut().for_each(|byte| *byte = b'0' + *byte % 64);
        }
        let encoded = encode(&mut Encoder::new(Level::new(level)), &data, block_bytes);
        prop_assert!(decode(&encoded) == data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    /// At the fastest levels the halves of a large block are searched in turns.
    #[test]
    fn halves_of_a_block_decode_to_their_input(
        sizes in prop::collection::vec((any::<u64>(), 1usize..60_000, prop::sample::select(vec![0u8, 1, 3, 0x1f, 0xff])), 4..12),
        start in 0usize..50_000,
        size in prop::sample::select(vec![(128 << 10) - 1, 128 << 10, (128 << 10) + 1, 200_000, 300_001]),
        level in 1..=2,
    ) {
        let pieces: Vec<u8> = sizes.iter().flat_map(|&(seed, count, mask)| noise(count, mask, seed)).collect();
        let end = start + size;
        let mut window = window();
        window[..end].iter_mut().zip(pieces.iter().cycle()).for_each(|(byte, &piece)| *byte = piece);
        let clean = Encoder::new(Level::new(level)).encode(&window, start, end, true).to_vec();
        let mut decoder = Decompress::new(false);
        if start > 0 {
            decoder.set_dictionary(&window[start.saturating_sub(DICTIONARY_BYTES)..start]).unwrap();
        }
        let mut decoded = Vec::with_capacity(size + 1);
        decoder.decompress_vec(&clean, &mut decoded, FlushDecompress::Finish).unwrap();
        prop_assert!(decoded == window[start..end]);
        window[end..].fill(pieces[0]);
        prop_assert!(clean == Encoder::new(Level::new(level)).encode(&window, start, end, true));
    }
}
