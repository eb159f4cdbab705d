//! What a change sets going once it is on the disk.
//!
//! An effect belongs to the commit and not to the caller: the task that commits runs it, so that an agent
//! that waits for work hears of it even when whoever made the change has hung up.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::table::TableId;
use crate::op_book::OpBook;

/// For whom there may be work.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// All agents of these tables: their queue has grown.
    pub tables: BTreeSet<TableId>,
    /// These agents, whatever the queue holds.
    pub agents: BTreeSet<i64>,
}

impl Calls {
    pub fn concern(&self, table: TableId, agent: i64) -> bool {
        self.tables.contains(&table) || self.agents.contains(&agent)
    }
}

/// What follows from a change. Whatever changes tasks returns some, and a change returns those of all its
/// parts.
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
    /// Nothing follows.
    pub fn none() -> Effects {
        Effects::default()
    }

    /// There may be a task to hand out to the agents of these tables.
    pub fn work(tables: impl IntoIterator<Item = TableId>) -> Effects {
        let work = Calls { tables: tables.into_iter().collect(), ..Calls::default() };
        Effects { work, ..Effects::default() }
    }

    /// There may be something for these agents to do, whatever the queue holds.
    pub fn work_for(agents: impl IntoIterator<Item = i64>) -> Effects {
        let work = Calls { agents: agents.into_iter().collect(), ..Calls::default() };
        Effects { work, ..Effects::default() }
    }

    /// A request may have got further, or there is something to derive.
    pub fn progress() -> Effects {
        Effects { progress: true, ..Effects::default() }
    }

    /// These leases have ended.
    pub fn ended(leases: Vec<Uuid>) -> Effects {
        Effects { ended: leases, ..Effects::default() }
    }

    /// This agent has left, at that time.
    pub fn left(agent: i64, at: Timestamp) -> Effects {
        Effects { left: vec![(agent, at)], ..Effects::default() }
    }

    /// These are the ops from now on.
    pub fn ops(book: Arc<OpBook>) -> Effects {
        Effects { ops: Some(book), ..Effects::default() }
    }

    /// Both of two changes.
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
