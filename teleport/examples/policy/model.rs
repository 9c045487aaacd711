//! A policy of one layer: actions and a value are a matrix product of observations and weights.

use teleport::{Array, BoxError, Context, Tree, tree};

use crate::actor::{CHANNELS, SIDE};

/// Numbers of an action.
const ACTIONS: usize = 7;
/// The action, and the value.
const OUTPUTS: usize = ACTIONS + 1;

const PIXELS: usize = SIDE * SIDE * CHANNELS;
const SCALARS: usize = 3;

/// Inputs whose weights are used for all rows before the next inputs. Their weights take 16 KiB, which fits
/// into the fastest cache.
const PIECE: usize = 512;

/// Weights, f32 [inputs, outputs].
pub(crate) struct Policy {
    pixels: Vec<[f32; OUTPUTS]>,
    scalars: [[f32; OUTPUTS]; SCALARS],
}

impl Policy {
    /// Creates a policy that has learned nothing: its weights are random, and the same each time.
    pub(crate) fn new() -> Policy {
        let mut state = 1u32;
        let mut random = |scale: f32| {
            // The generator of Numerical Recipes, which is good enough for weights that differ.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            scale * (state as f32 / u32::MAX as f32 - 0.5)
        };
        let scale = 1.0 / (255.0 * (PIXELS as f32).sqrt());
        let mut row = |scale| std::array::from_fn(|_| random(scale));
        Policy {
            pixels: (0..PIXELS).map(|_| row(scale)).collect(),
            scalars: [(); SCALARS].map(|()| row(1.0)),
        }
    }

    /// Returns actions, f32 [n, 7], and values, f32 [n], for n observations: images, u8 [n, 64, 64, 3], and
    /// scalars.
    pub(crate) fn act(&self, mut x: Tree, cx: &Context) -> Result<Tree, BoxError> {
        let rows = cx.rows_padded();
        let images: Array = x.take("image")?;
        if images.shape() != [rows, SIDE, SIDE, CHANNELS] {
            return Err(format!("images have the shape [n, 64, 64, 3], not {:?}", images.shape()).into());
        }
        let (rewards, speeds): (Vec<f32>, Vec<f32>) = (x.take("reward")?, x.take("speed")?);
        let firsts: Vec<bool> = x.take("is_first")?;
        let mut sums = vec![[0.0; OUTPUTS]; rows];
        // Batching saves time here: each piece of the weights is loaded from memory once for all rows.
        let images = images.as_slice::<u8>()?;
        for (piece, weights) in self.pixels.chunks(PIECE).enumerate() {
            for (sums, image) in sums.iter_mut().zip(images.chunks_exact(PIXELS)) {
                add_product(sums, image[piece * PIECE..].iter().map(|pixel| f32::from(*pixel)), weights);
            }
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let first = if firsts[row] { 1.0 } else { 0.0 };
            add_product(sums, [rewards[row], speeds[row], first].into_iter(), &self.scalars);
        }
        let mut actions = cx.alloc::<f32>([rows, ACTIONS])?;
        for (action, sums) in actions.as_mut_slice::<f32>()?.chunks_exact_mut(ACTIONS).zip(&sums) {
            action.iter_mut().zip(sums).for_each(|(action, sum)| *action = sum.tanh());
        }
        let values: Vec<f32> = sums.iter().map(|sums| sums[ACTIONS]).collect();
        Ok(tree!({"action": actions, "value": values}))
    }
}

/// Adds the product of a row of inputs and their weights.
fn add_product(sums: &mut [f32; OUTPUTS], inputs: impl Iterator<Item = f32>, weights: &[[f32; OUTPUTS]]) {
    for (input, weights) in inputs.zip(weights) {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += input * weight;
        }
    }
}
