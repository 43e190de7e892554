//! Walras.
fn main() {}
