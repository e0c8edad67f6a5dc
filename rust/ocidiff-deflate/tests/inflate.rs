//! Streams are decoded, and refused at the same place, as another decoder does.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, ErrorKind, Read, Result, Write};

use common::{BLOCK, encode, seeded_mixture};
use flate2::{Compression, Decompress, FlushDecompress, Status, write::DeflateEncoder};
use ocidiff_deflate::{DICTIONARY_BYTES, Encoder, Inflated, Inflater, Level, Pause};
use proptest::prelude::*;

/// Gives a few bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, _: &mut [u8]) -> Result<usize> {
        unreachable!("the decoder asks for what is there")
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        Ok(&self.0[..self.0.len().min(self.1)])
    }

    fn consume(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }
}

/// The content before the end or the fault, and the bytes behind the stream.
type Outcome = (Vec<u8>, std::result::Result<usize, ErrorKind>);

/// Decodes a stream whose bytes come `piece` at a time.
fn inflate(stream: &[u8], piece: usize) -> Outcome {
    let mut input = Pieces(stream, piece);
    let mut window: Box<Inflated> = vec![0xa5; size_of::<Inflated>()].into_boxed_slice().try_into().unwrap();
    let mut inflater = Inflater::default();
    let mut content = Vec::new();
    inflater.begin();
    loop {
        let mut end = DICTIONARY_BYTES;
        let paused = inflater.inflate(&mut input, &mut window, &mut end);
        content.extend_from_slice(&window[DICTIONARY_BYTES..end]);
        match paused {
            Ok(Pause::Full) => window.copy_within(end - DICTIONARY_BYTES..end, 0),
            Ok(Pause::End) => {
                let mut rest = 0;
                while !inflater.is_at_end(&mut input).unwrap() {
                    inflater.take_bytes(1, &mut input).unwrap();
                    rest += 1;
                }
                return (content, Ok(rest));
            }
            Err(error) => return (content, Err(error.kind())),
        }
    }
}

fn inflate_elsewhere(stream: &[u8]) -> Outcome {
    let mut decoder = Decompress::new(false);
    let mut content = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let (taken, made) = (decoder.total_in(), decoder.total_out());
        let status = decoder.decompress(&stream[taken as usize..], &mut buffer, FlushDecompress::None);
        let count = (decoder.total_out() - made) as usize;
        content.extend_from_slice(&buffer[..count]);
        match status {
            Err(_) => return (content, Err(ErrorKind::InvalidData)),
            Ok(Status::StreamEnd) => return (content, Ok(stream.len() - decoder.total_in() as usize)),
            Ok(_) if count == 0 && decoder.total_in() == taken => return (content, Err(ErrorKind::UnexpectedEof)),
            Ok(_) => {}
        }
    }
}

fn deflate_elsewhere(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn assert_same(stream: &[u8], piece: usize) {
    let (expected, outcome) = inflate_elsewhere(stream);
    let (content, end) = inflate(stream, piece);
    assert_eq!((end, content.len()), (outcome, expected.len()));
    assert!(content == expected);
}

#[test]
fn streams_of_every_encoder_decode_in_pieces_of_any_size() {
    for (count, piece) in [(0, 1), (1, 1), (70_000, 1), (300_000, 7), (700_000, 1000), (1_500_000, 1 << 18)] {
        let content = seeded_mixture(count, count as u64);
        for level in 0..=9 {
            let mut stream = deflate_elsewhere(&content, level);
            stream.extend_from_slice(b"behind");
            assert_eq!(inflate(&stream, piece), (content.clone(), Ok(6)));
        }
        for level in [1, 6, 9] {
            let stream = encode(&mut Encoder::new(Level::new(level)), &content, BLOCK);
            assert_eq!(inflate(&stream, piece), (content.clone(), Ok(0)));
        }
    }
}

#[test]
fn matches_of_every_distance_and_length_decode() {
    for distance in (1..70).chain([255, 256, 4095, 32_767, 32_768]) {
        for length in [3, 4, 15, 16, 17, 31, 32, 33, 257, 258, 600] {
            let mut content = seeded_mixture(distance, 5);
            (0..length).for_each(|_| content.push(content[content.len() - distance]));
            let stream = deflate_elsewhere(&content, 9);
            assert_eq!(inflate(&stream, 1 << 18), (content, Ok(0)));
        }
    }
}

#[test]
fn a_match_reaches_no_further_than_its_stream() {
    // A fixed block: one literal, then a match of 3 bytes at distance 2.
    let stream = [0x4b, 0x04, 0x22, 0x00];
    assert_same(&stream, 1);
    assert_eq!(inflate(&stream, 4).1, Err(ErrorKind::InvalidData));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn broken_streams_are_refused_at_the_same_place(
        size in 1..60_000usize,
        seed: u64,
        level in 0..10u32,
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<Option<prop::sample::Index>>(),
        piece in prop_oneof![Just(1usize), Just(1 << 18), 1..400usize],
    ) {
        let mut stream = deflate_elsewhere(&seeded_mixture(size, seed), level);
        for (place, value) in faults {
            let place = place.index(stream.len());
            stream[place] = value;
        }
        if let Some(cut) = cut {
            stream.truncate(cut.index(stream.len()));
        }
        assert_same(&stream, piece);
    }

    #[test]
    fn descriptions_of_codes_are_judged_alike(
        mut stream in prop::collection::vec(any::<u8>(), 3..300),
        few in any::<bool>(),
        piece in 1..300usize,
    ) {
        // A last block with codes of its own, and few of the counts beyond what is allowed.
        stream[0] = stream[0] & !7 | 5;
        if few {
            stream[1..].iter_mut().step_by(3).for_each(|byte| *byte &= 0x49);
        }
        assert_same(&stream, piece);
    }

    #[test]
    fn fixed_codes_are_judged_alike(mut stream in prop::collection::vec(any::<u8>(), 1..300), piece in 1..300usize) {
        stream[0] = stream[0] & !7 | 3;
        assert_same(&stream, piece);
    }
}
