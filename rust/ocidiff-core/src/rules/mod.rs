//! Rules that several rooms apply and none of them owns.

pub mod acl;
pub mod linux;
pub mod open;
pub mod xattr;
