//! Messages of plain bytes: an array as it is, and a dict as names and arrays, one after the other.
//!
//! Flow: [`Item`] -> tonic's buffer, with the copy that tonic requires; tonic's buffer -> [`Bytes`], without
//! one.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The first buffer of each message, smaller than tonic's default of 8 KiB, which would slow small calls
/// down.
const BUFFER_BYTES: usize = 1 << 10;

/// The messages of a stream are flushed at this size, tonic's default.
const YIELD_BYTES: usize = 32 << 10;

/// An outgoing message.
pub(super) enum Item {
    Array(Bytes),
    Dict(Arc<Vec<(String, Bytes)>>),
}

/// The arrays of a dict with their names; they share its bytes.
pub(super) fn arrays(mut dict: Bytes) -> Result<Vec<(String, Bytes)>, Status> {
    let mut arrays = Vec::new();
    while dict.has_remaining() {
        let name = part(&mut dict)?;
        let name =
            String::from_utf8(name.to_vec()).map_err(|_| Status::data_loss("a name that is no text"))?;
        arrays.push((name, part(&mut dict)?));
    }
    Ok(arrays)
}

fn part(dict: &mut Bytes) -> Result<Bytes, Status> {
    let cut = || Status::data_loss("a dict that ends within an entry");
    let bytes = dict.try_get_u64_le().map_err(|_| cut())?;
    if bytes > dict.len() as u64 {
        return Err(cut());
    }
    Ok(dict.split_to(bytes as usize))
}

fn put_part(bytes: &[u8], to: &mut EncodeBuf<'_>) {
    to.put_u64_le(bytes.len() as u64);
    to.put_slice(bytes);
}

/// The codec of plain bytes.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Codec for Plain {
    type Encode = Item;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Item;
    type Error = Status;

    fn encode(&mut self, item: Item, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Item::Array(array) => {
                to.reserve(array.len());
                to.put_slice(&array);
            }
            Item::Dict(arrays) => {
                to.reserve(arrays.iter().map(|(name, array)| 16 + name.len() + array.len()).sum());
                for (name, array) in arrays.iter() {
                    put_part(name.as_bytes(), to);
                    put_part(array, to);
                }
            }
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
