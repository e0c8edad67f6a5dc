//! The verb index: a tree, or the layers of an image, become an index.
//!
//! Law: the index of layers is the index of the tree that they unpack to.

mod layers;
mod tree;

pub use layers::{LayersIndexed, write_index_of_layers};
pub use tree::{IndexOptions, write_index};
