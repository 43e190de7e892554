//! Walras.

pub mod book;
pub mod view;
