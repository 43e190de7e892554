//! Walras.
