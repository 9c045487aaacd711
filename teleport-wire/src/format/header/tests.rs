use super::*;

fn decode(header: Header) -> Result<FrameHeader, DecodeError> {
    Header::decode(&header.encode(), &Limits::default())
}

/// Returns the bytes with a right checksum.
fn sealed(mut bytes: [u8; Header::BYTES]) -> [u8; Header::BYTES] {
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn every_kind_round_trips_with_its_shortest_and_longest_body() {
    for rule in &RULES {
        let id = u64::from(!matches!(rule.id, Id::Zero));
        let longest = rule.length.1.min(u64::from(Limits::default().max_metadata_bytes));
        for length in [rule.length.0, longest] {
            let body_crc = if length == 0 || rule.kind == Kind::Data { 0 } else { 9 };
            let header = Header { length, body_crc, arg: rule.max_arg, ..Header::empty(rule.kind, id) };
            assert_eq!(decode(header), Ok(FrameHeader::Known(header)));
            let other = Header { length: rule.length.1 + 1, ..header };
            assert!(decode(other).is_err(), "{other:?}");
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = Header::of_body(Kind::Call, 3, b"twenty-six bytes of a body").encode();
    for bit in 0..Header::BYTES * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = Header::decode(&flipped, &Limits::default()).unwrap_err();
        assert!(matches!(error, DecodeError::HeaderChecksum { .. }));
    }
}

#[test]
fn values_that_a_kind_does_not_allow_are_refused() {
    let ping = Header::empty(Kind::Ping, 1);
    let call = Header { length: 40, ..Header::empty(Kind::Call, 1) };
    let inline = Header { flags: Header::EAGER | Header::INLINE, ..call };
    let max_metadata_bytes = u64::from(Limits::default().max_metadata_bytes);
    let data = Header::data(1, 40, None);
    assert_eq!(decode(Header { id: 0, ..call }), Err(DecodeError::Zero { field: "header id" }));
    for broken in [
        Header { flags: 1, ..ping },
        Header { arg: 1, ..ping },
        Header { body_crc: 1, ..ping },
        Header { length: 1, ..ping },
        Header { flags: Header::INLINE, ..call },
        Header { flags: Header::EAGER | Header::CHECKED, ..call },
        Header { flags: Header::INLINE | Header::CHECKED, ..call },
        Header { flags: 8, ..call },
        Header { flags: 15, ..call },
        Header { flags: u8::MAX, ..call },
        Header { flags: Header::EAGER, arg: 1, ..call },
        Header { arg: 1, ..inline },
        Header { length: 26, ..inline },
        Header { length: max_metadata_bytes + MAX_INLINE_BYTES + 1, ..inline },
        Header { length: max_metadata_bytes + 1, ..call },
        Header { length: u64::MAX, ..call },
        Header { flags: 4, ..data },
        Header { length: 0, ..data },
        Header { body_crc: 1, ..data },
        Header { flags: Header::SHARED, ..data },
        Header { length: 9, ..Header::empty(Kind::Grant, 0) },
        Header { length: 8, ..Header::empty(Kind::Grant, 1) },
        Header { arg: 1 << 16, ..Header::empty(Kind::Goodbye, 0) },
    ] {
        assert!(decode(broken).is_err(), "{broken:?}");
    }
    assert!(decode(Header { length: 27, ..inline }).is_ok());
    assert!(decode(Header { length: max_metadata_bytes + MAX_INLINE_BYTES, ..inline }).is_ok());
    assert!(decode(Header { flags: inline.flags | Header::CHECKED, arg: 1, ..inline }).is_ok());
    assert!(decode(Header { flags: Header::SHARED, length: 48, ..data }).is_ok());
    assert!(decode(Header { flags: Header::CHECKSUM, body_crc: 1, ..data }).is_ok());
}

/// What is accepted at once is what the rules accept.
#[test]
fn plain_headers_keep_all_rules() {
    let limits = Limits { max_metadata_bytes: 20_000, ..Limits::default() };
    let mut plain = 0;
    for rule in &RULES {
        let (min, max) = rule.length;
        let at_limit = [20_000, 20_001, 20_000 + MAX_INLINE_BYTES, 20_001 + MAX_INLINE_BYTES];
        let near = [0, 1, min.wrapping_sub(1), min, min + 1, max, max.wrapping_add(1)];
        for length in near.into_iter().chain(at_limit) {
            for number in 0..128 {
                let (flags, body_crc, id, arg) = (number & 15, number >> 4 & 1, number >> 5 & 1, number >> 6);
                let flags = flags as u8;
                let header = Header { kind: rule.kind, flags, body_crc, id: id.into(), length, arg };
                let mut bytes = header.encode();
                let found = Header::decode_plain(&bytes, &limits);
                let is_plain = matches!(rule.kind, Kind::Call | Kind::Result) && matches!(flags, 0 | 3);
                let is_legal = header.check(rule, 20_000).is_ok();
                assert_eq!(found, (is_plain && is_legal).then_some(header), "{header:?}");
                plain += u32::from(found.is_some());
                bytes[2] = 1;
                assert_eq!(Header::decode_plain(&sealed(bytes), &limits), None, "a reserved byte");
                bytes[2] = 0;
                bytes[31] ^= 1;
                assert_eq!(Header::decode_plain(&bytes, &limits), None, "a wrong checksum");
            }
        }
    }
    assert!(plain >= 20, "{plain} headers were plain");
}

#[test]
fn unknown_kinds_are_refused_unless_they_may_be_skipped() {
    let mut bytes = Header::empty(Kind::Ping, 1).encode();
    for kind in [0, 18, 0x7F] {
        bytes[0] = kind;
        let found = Header::decode(&sealed(bytes), &Limits::default());
        assert_eq!(found, Err(DecodeError::UnknownKind { kind }));
    }
    bytes[0] = Header::SKIPPABLE | 2;
    bytes[16] = 9;
    let skip = |bytes| Header::decode(&sealed(bytes), &Limits::default());
    assert_eq!(skip(bytes), Ok(FrameHeader::Skip { length: 9 }));
    bytes[23] = 0x80;
    assert!(matches!(skip(bytes), Err(DecodeError::TooLarge { .. })));
    bytes[23] = 0;
    bytes[3] = 1;
    assert!(matches!(skip(bytes), Err(DecodeError::NotZero { .. })));
}

#[test]
fn bodies_are_checked() {
    let header = Header::of_body(Kind::Hello, 0, b"body");
    assert_eq!(header.check_body(b"body"), Ok(()));
    assert!(header.check_body(b"bodi").is_err());
    assert_eq!(Header::data(1, 4, None).check_body(b"bodi"), Ok(()));
}
