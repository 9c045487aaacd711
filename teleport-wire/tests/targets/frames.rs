//! Headers and bodies of control frames: decoded bytes encode to the same bytes.

use teleport_wire::{
    Block, Extent, FrameHeader, Goodbye, Header, Hello, Kind, Limits, Preface, RemoteError, Resume,
    ResumeAnswer, decode_ids, encode_ids,
};

/// `data` is the first 28 bytes of a header, and the body. The header's checksum is added, since a fuzzer
/// would never find it. The body is decoded as the kind requires, even if the header is wrong.
pub(crate) fn frames(data: &[u8]) {
    let _ = Preface::check_prefix(data);
    let Some((start, body)) = data.split_first_chunk::<28>() else { return };
    let mut bytes = [0; Header::BYTES];
    bytes[..28].copy_from_slice(start);
    bytes[28..].copy_from_slice(&teleport_crc(start).to_le_bytes());
    let header = Header::decode(&bytes, &Limits::default());
    let Ok(FrameHeader::Known(header)) = header else {
        let kind = Kind::all().find(|kind| kind.number() == start[0]);
        return read(&Header::of_body(kind.unwrap_or(Kind::Hello), 1, body), body);
    };
    assert_eq!(header.encode(), bytes);
    let _ = header.check_body(body);
    if let Ok((metadata, payload)) = header.split_body(body, &Limits::default()) {
        assert_eq!(([metadata, payload].concat(), payload.is_empty()), (body.to_vec(), !header.is_inline()));
    }
    read(&header, body);
}

fn read(header: &Header, body: &[u8]) {
    let written = match header.kind {
        Kind::Hello => Hello::decode(body).ok().map(|hello| hello.encode()),
        Kind::Error => RemoteError::decode(body).ok().map(|error| error.encode()),
        Kind::Grant | Kind::Ack => decode_ids(body).ok().map(|ids| encode_ids(&ids.collect::<Vec<_>>())),
        Kind::Resume => Resume::decode(body).ok().map(|resume| resume.encode()),
        Kind::ResumeAnswer => ResumeAnswer::decode(body).ok().map(|answer| answer.encode()),
        Kind::Block => Block::decode(body).ok().map(|block| block.encode().to_vec()),
        Kind::Data if header.is_shared() => Extent::decode(body).ok().map(|list| Extent::encode(&list)),
        Kind::Goodbye => {
            let goodbye = Goodbye::decode(header, body).ok();
            goodbye.map(|goodbye| goodbye.encode_frame()[Header::BYTES..].to_vec())
        }
        _ => None,
    };
    if let Some(written) = written {
        assert_eq!(written, body);
    }
}

fn teleport_crc(bytes: &[u8]) -> u32 {
    Header::of_body(Kind::Hello, 0, bytes).body_crc
}
