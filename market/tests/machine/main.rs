//! The market machine: the rules by example, every refusal, and random histories against a slow model.

mod driver;
mod model;
mod properties;
mod refusals;
mod rules;
mod telling;
