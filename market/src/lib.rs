//! Walras.

pub mod book;
