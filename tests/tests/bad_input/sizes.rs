//! Wrong or huge sizes, counts and depths.

use teleport::wire::{Header, Kind, Preface};
use teleport_tests::Raw;

use crate::case::{Case, cases, liar, liars, stranger};
use crate::made::{array_signature, call, call_body, frame};

fn a_header_that_announces_almost_2_to_the_64_bytes() -> Case {
    let lie = |(kind, id, body_crc)| {
        let header = Header { body_crc, length: u64::MAX - 31, ..Header::empty(kind, id) };
        header.encode().to_vec()
    };
    let kinds = [(Kind::Call, 1, 1), (Kind::Data, 1, 0), (Kind::Goodbye, 0, 1), (Kind::Grant, 0, 1)];
    liars("18446744073709551584", kinds.map(lie).to_vec())
}

fn a_hello_that_announces_almost_2_to_the_64_bytes() -> Case {
    let header = Header { length: u64::MAX, body_crc: 1, ..Header::empty(Kind::Hello, 0) };
    let bytes = [&Preface::BYTES[..], &header.encode()].concat();
    stranger("18446744073709551615", bytes)
}

fn metadata_one_byte_past_its_limit() -> Case {
    Case::new("metadata bytes", |address| {
        let (mut peer, hello) = Raw::introduced(address);
        let length = u64::from(hello.limits.max_metadata_bytes) + 1;
        peer.send(&Header { length, body_crc: 1, ..Header::empty(Kind::Call, 1) }.encode());
        peer.until_closed();
    })
}

fn strings_of_almost_2_to_the_64_bytes() -> Case {
    let sizes = [u64::MAX, u64::MAX - 63, 1 << 63, 1 << 40];
    let lie = |tag: u8| sizes.map(|size: u64| call(&[&[tag], &size.to_le_bytes()[..]].concat()));
    liars("bytes", [2, 3].map(lie).concat())
}

fn shapes_of_almost_2_to_the_64_items() -> Case {
    let shapes = [
        vec![u64::MAX],
        vec![1 << 32, 1 << 32],
        vec![1 << 63, 2],
        vec![u64::MAX, 0],
        vec![0, 1 << 62],
        vec![3; 32],
        vec![1 << 50],
    ];
    liars("bytes", shapes.map(|shape| call(&array_signature(&shape))).to_vec())
}

fn many_strings_whose_sum_is_past_2_to_the_64() -> Case {
    let one = [&[2u8], &(15u64 << 30).to_le_bytes()[..]].concat();
    let signature = [&[4u8], &1000u32.to_le_bytes()[..], &one.repeat(1000)].concat();
    liar("bytes", move |peer| peer.send(&call(&signature)))
}

fn texts_of_almost_2_to_the_32_characters() -> Case {
    let signature = [&[1u8, 17, 1][..], &u32::MAX.to_le_bytes(), &u64::MAX.to_le_bytes()].concat();
    liar("bytes", move |peer| peer.send(&call(&signature)))
}

fn counts_of_almost_2_to_the_32_entries() -> Case {
    let lie = |tag: u8| call(&[&[tag][..], &u32::MAX.to_le_bytes(), &[0; 100]].concat());
    liars("bytes and 100 are left", [4, 5].map(lie).to_vec())
}

fn an_array_of_256_axes() -> Case {
    let signature = [&[1u8, 6, 255][..], &[1, 0, 0, 0, 0, 0, 0, 0].repeat(255)].concat();
    liar("32", move |peer| peer.send(&call(&signature)))
}

fn more_nodes_than_the_limit() -> Case {
    let signature = [&[4u8][..], &100_000u32.to_le_bytes(), &[0; 100_000]].concat();
    liar("65536", move |peer| peer.send(&call(&signature)))
}

/// Returns the signature of `depth` nested lists around a null.
fn nested(depth: usize) -> Vec<u8> {
    let mut signature = [4u8, 1, 0, 0, 0].repeat(depth);
    signature.push(0);
    signature
}

fn depth_of_a_million() -> Case {
    let bytes = call(&nested(1_000_000));
    liar("metadata bytes", move |peer| peer.send(&bytes))
}

fn depth_of_as_much_as_metadata_holds() -> Case {
    let bytes = call(&nested(200_000));
    liar("64", move |peer| peer.send(&bytes))
}

fn lengths_inside_of_metadata_that_lie() -> Case {
    let lie = |at: usize| {
        let mut body = call_body(&[0]);
        body[at..at + 2].fill(0xFF);
        frame(Kind::Call, 1, &body)
    };
    liars("bytes", [0, 4, 8].map(lie).to_vec())
}

fn bytes_after_the_end_of_metadata() -> Case {
    let mut body = call_body(&[0]);
    body.push(0);
    liar("", move |peer| peer.send(&frame(Kind::Call, 1, &body)))
}

fn unknown_tags_and_dtypes() -> Case {
    let signatures = [&[6u8][..], &[255], &[1, 0, 0], &[1, 20, 0], &[1, 18, 0, 14, 1, 0, 0, 0]];
    liars("unknown", signatures.map(call).to_vec())
}

fn keys_out_of_order_or_twice() -> Case {
    let entry = |key: u8| [&1u32.to_le_bytes()[..], &[key, 0]].concat();
    let lie = |keys: [u8; 2]| call(&[&[5u8][..], &2u32.to_le_bytes(), &keys.map(entry).concat()].concat());
    liars("key", [*b"ba", *b"aa"].map(lie).to_vec())
}

cases![
    a_header_that_announces_almost_2_to_the_64_bytes,
    a_hello_that_announces_almost_2_to_the_64_bytes,
    metadata_one_byte_past_its_limit,
    strings_of_almost_2_to_the_64_bytes,
    shapes_of_almost_2_to_the_64_items,
    many_strings_whose_sum_is_past_2_to_the_64,
    texts_of_almost_2_to_the_32_characters,
    counts_of_almost_2_to_the_32_entries,
    an_array_of_256_axes,
    more_nodes_than_the_limit,
    depth_of_a_million,
    depth_of_as_much_as_metadata_holds,
    lengths_inside_of_metadata_that_lie,
    bytes_after_the_end_of_metadata,
    unknown_tags_and_dtypes,
    keys_out_of_order_or_twice,
];
