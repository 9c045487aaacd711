//! Batched functions, and the same for single calls: a policy over images, and large results.
//!
//! A policy's answer is one f32 per row, made of the first byte of its image. It computes next to nothing,
//! so that the row measures how calls are batched. One that keeps its last images needs as much memory as a
//! batch does. Large results are not filled, as in other rows.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use teleport::transport::MemoryError;
use teleport::{Array, Batch, BoxError, Client, Context, IntoTree as _, Method, Methods, Tree};

use crate::bench::protocol::{BATCH, CROWD_BATCH, KEPT};

/// Adds the functions to `methods`.
pub(super) fn register(methods: Methods) -> Methods {
    methods
        .register("policy", |image: Array| act(image.as_bytes()))
        .register("keeping_policy", keeping())
        .register("batched_policy", Method::batched(Batch::up_to(BATCH), act_all))
        .register("crowd_policy", Method::batched(Batch::up_to(CROWD_BATCH), act_all))
        .register("pool_source", super::source)
        .register("batched_source", Method::batched(Batch::up_to(BATCH), sources))
}

fn act(image: &[u8]) -> f32 {
    image.first().map_or(0.0, |byte| f32::from(*byte))
}

/// Returns a policy that keeps its last [`KEPT`] images.
fn keeping() -> impl Fn(Array) -> f32 + Send + Sync + 'static {
    let kept = Mutex::new(VecDeque::with_capacity(KEPT + 1));
    move |image: Array| {
        let action = act(image.as_bytes());
        let oldest = {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(image);
            if kept.len() > KEPT { kept.pop_front() } else { None }
        };
        drop(oldest);
        action
    }
}

/// Maps images `[n, ...]` to f32 `[n]`.
fn act_all(images: Array, context: Context) -> Array {
    let row_bytes = (images.bytes() / context.rows_padded()).max(1);
    Array::from(images.as_bytes().chunks(row_bytes).map(act).collect::<Vec<f32>>())
}

/// Makes results of these sizes.
fn sources(bytes: Vec<u64>, context: Context) -> Result<Array, MemoryError> {
    let row_bytes = bytes.first().map_or(0, |bytes| *bytes as usize);
    context.alloc::<u8>([context.rows_padded(), row_bytes])
}

/// Makes an image of `bytes`. Some sizes have the dtype and shape of common images.
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
