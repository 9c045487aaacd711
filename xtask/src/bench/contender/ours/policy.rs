//! Functions that run once for many calls, and the same for one: what a policy does with images, and
//! large results.
//!
//! A policy's answer is one f32 a row, made of the first byte of its image: next to nothing, so that
//! what is measured is how calls come together and apart. Large results are not filled, as those of
//! other rows are not.

use teleport::transport::MemoryError;
use teleport::{Array, Batch, BoxError, Client, Context, IntoTree as _, Method, Methods, Tree};

use crate::bench::protocol::{BATCH, CROWD_BATCH};

/// Adds them to `methods`.
pub(super) fn register(methods: Methods) -> Methods {
    methods
        .register("policy", |image: Array| act(image.as_bytes()))
        .register("batched_policy", Method::batched(Batch::up_to(BATCH), act_all))
        .register("crowd_policy", Method::batched(Batch::up_to(CROWD_BATCH), act_all))
        .register("pool_source", super::source)
        .register("batched_source", Method::batched(Batch::up_to(BATCH), sources))
}

fn act(image: &[u8]) -> f32 {
    image.first().map_or(0.0, |byte| f32::from(*byte))
}

/// Of images `[n, ...]`, f32 `[n]`.
fn act_all(images: Array, context: Context) -> Array {
    let row_bytes = (images.bytes() / context.rows_padded()).max(1);
    Array::from(images.as_bytes().chunks(row_bytes).map(act).collect::<Vec<f32>>())
}

/// Results of so many bytes each.
fn sources(bytes: Vec<u64>, context: Context) -> Result<Array, MemoryError> {
    let row_bytes = bytes.first().map_or(0, |bytes| *bytes as usize);
    context.alloc::<u8>([context.rows_padded(), row_bytes])
}

/// An image of so many bytes; of some sizes, with the dtype and shape that people know.
pub(super) fn image(client: &Client, bytes: u64) -> Result<Tree, BoxError> {
    let mut image = match bytes {
        12_288 => client.alloc::<u8>([64, 64, 3])?,
        602_112 => {
            let mut image = client.alloc::<f32>([224, 224, 3])?;
            image.as_mut_slice::<f32>()?.fill(1.0);
            return Ok(image.into_tree());
        }
        _ => client.alloc::<u8>([bytes as usize])?,
    };
    image.as_mut_slice::<u8>()?.fill(1);
    Ok(image.into_tree())
}
