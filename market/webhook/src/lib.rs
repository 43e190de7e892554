//! Webhooks, decided: which tenant is told what, when it is tried again, when it is given up. `README.md` beside this
//! crate tells how.
//!
//! Nothing here opens a socket. [`Webhooks`] is the machine; [`Target`] reads an address; [`is_public`] says which
//! addresses may be dialled; [`message`] is what is sent.

mod address;
mod delivery;
mod machine;
pub mod message;
mod state;

pub use address::{Target, UrlError, is_public};
pub use delivery::tenant_of;
pub use machine::Webhooks;
pub use state::{
    ATTEMPTS_MAX, DEAD_PER_WEBHOOK_MAX, DeliveriesView, DeliveryView, Due, WAITING_PER_WEBHOOK_MAX,
    WEBHOOKS_MAX, WEBHOOKS_PER_TENANT_MAX, WebhookView, WebhooksView,
};
