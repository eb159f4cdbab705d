//! The effects of a change after it is on disk.
//!
//! Effects belong to the commit, not to the caller: the task that commits runs them. So a waiting agent learns about
//! new work even if the caller of the change has disconnected.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::table::TableId;
use crate::op_book::OpBook;

/// The agents for which there may be work.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// All agents of these tables: their queue has grown.
    pub tables: BTreeSet<TableId>,
    /// These agents, independent of the queue.
    pub agents: BTreeSet<i64>,
}

impl Calls {
    pub fn concern(&self, table: TableId, agent: i64) -> bool {
        self.tables.contains(&table) || self.agents.contains(&agent)
    }
}

/// The effects of a change. Every change of tasks returns some, and a change returns the effects of all its parts.
#[derive(Debug, Default)]
#[must_use = "the change returns them, and the task that commits it runs them"]
pub(super) struct Effects {
    pub work: Calls,
    pub progress: bool,
    pub ended: Vec<Uuid>,
    pub left: Vec<(i64, Timestamp)>,
    pub ops: Option<Arc<OpBook>>,
}

impl Effects {
    /// No effects.
    pub fn none() -> Effects {
        Effects::default()
    }

    /// There may be a task to hand out to the agents of these tables.
    pub fn work(tables: impl IntoIterator<Item = TableId>) -> Effects {
        let work = Calls { tables: tables.into_iter().collect(), ..Calls::default() };
        Effects { work, ..Effects::default() }
    }

    /// These agents may have something to do, independent of the queue.
    pub fn work_for(agents: impl IntoIterator<Item = i64>) -> Effects {
        let work = Calls { agents: agents.into_iter().collect(), ..Calls::default() };
        Effects { work, ..Effects::default() }
    }

    /// A request may have progressed, or data is to be derived.
    pub fn progress() -> Effects {
        Effects { progress: true, ..Effects::default() }
    }

    /// These leases have ended.
    pub fn ended(leases: Vec<Uuid>) -> Effects {
        Effects { ended: leases, ..Effects::default() }
    }

    /// This agent left at that time.
    pub fn left(agent: i64, at: Timestamp) -> Effects {
        Effects { left: vec![(agent, at)], ..Effects::default() }
    }

    /// The new set of ops.
    pub fn ops(book: Arc<OpBook>) -> Effects {
        Effects { ops: Some(book), ..Effects::default() }
    }

    /// The effects of both changes.
    pub fn and(mut self, other: Effects) -> Effects {
        self.ended.extend(other.ended);
        self.left.extend(other.left);
        self.work.tables.extend(other.work.tables);
        self.work.agents.extend(other.work.agents);
        Effects {
            work: self.work,
            progress: self.progress || other.progress,
            ended: self.ended,
            left: self.left,
            ops: other.ops.or(self.ops),
        }
    }
}

impl FromIterator<Effects> for Effects {
    fn from_iter<I: IntoIterator<Item = Effects>>(all: I) -> Effects {
        all.into_iter().fold(Effects::none(), Effects::and)
    }
}
