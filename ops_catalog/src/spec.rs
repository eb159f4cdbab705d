//! Networks and spaces as their authors write them: plain data, not checked against a catalog.

mod external_id;
mod network;
mod space;

pub use self::external_id::ExternalId;
pub use self::network::{Input, LayerSpec, Merge, NetworkSpec, NodeSpec, Published};
pub use self::space::{Grid, SpaceDef};
