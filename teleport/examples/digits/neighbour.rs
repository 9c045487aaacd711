//! The digits, and the nearest neighbour among them.

use teleport::{Array, BoxError};

/// 1,797 images of 8x8 pixels, 0 to 16, and their digits. `data/README.md` has source and licence.
const IMAGES: &[u8] = include_bytes!("../data/digits.npy");
const LABELS: &[u8] = include_bytes!("../data/digits_labels.npy");

/// Pixels of an image.
const PIXELS: usize = 64;

/// Images with labels.
pub(crate) struct Digits {
    images: Array,
    labels: Vec<u8>,
}

impl Digits {
    /// Loads the digits that come with the example.
    pub(crate) fn load() -> Result<Digits, BoxError> {
        let images: Vec<u8> = npyz::NpyFile::new(IMAGES)?.into_vec()?;
        let labels: Vec<u8> = npyz::NpyFile::new(LABELS)?.into_vec()?;
        let images = Array::from_vec(images, [labels.len(), 8, 8])?;
        Ok(Digits { images, labels })
    }

    /// The number of digits.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns an image, u8 [8, 8]: a view, not a copy.
    pub(crate) fn image(&self, index: usize) -> Array {
        self.images.row(index)
    }

    /// The digit that an image shows.
    pub(crate) fn label(&self, index: usize) -> u8 {
        self.labels[index]
    }

    /// Returns the label of the image that is nearest to `image`, ignoring image number `except`.
    pub(crate) fn classify(&self, image: &[u8], except: usize) -> u8 {
        let others =
            self.images.as_bytes().chunks_exact(PIXELS).enumerate().filter(|(index, _)| *index != except);
        let nearest = others.min_by_key(|(_, other)| distance(image, other));
        nearest.map_or(0, |(index, _)| self.labels[index])
    }

    /// Returns true if the nearest neighbour of an image shows the same digit.
    pub(crate) fn is_right(&self, index: usize) -> bool {
        self.classify(self.image(index).as_bytes(), index) == self.labels[index]
    }
}

/// The squared distance of two images.
fn distance(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum()
}
