//! What threads publish, on its way to the members of this shard.
//!
//! A busy channel has many messages in the inbox when the shard comes to it. Those that follow each other are joined before
//! they are dealt, so that a member gets one piece of memory, which it shares with all others.

use std::iter;
use std::sync::Arc;
use std::vec::Drain;

use bytes::Bytes;

use super::inbox::Command;
use super::turn::Shard;
use crate::broker::Publication;
use crate::channel::Snapshot;
use crate::id::SocketId;
use crate::outbox::{COPY_UP_TO, RUN_BYTES};
use crate::registry::SocketEntry;

impl Shard {
    /// Publishes a message, and with it those of the next commands that can be joined with it.
    ///
    /// If no command is left nothing waits that could leave together with it.
    pub(super) fn publish(&mut self, first: Box<Publication>, next: &mut Drain<'_, Command>) {
        // One member has nobody to share a piece with.
        let is_shared = first.members.iter().map(|chunk| chunk.len()).sum::<usize>() > 1;
        let joined = if is_shared {
            joined_with(&first, next.as_slice())
        } else {
            0
        };
        if joined == 0 {
            return self.publish_one(&first, next.len() == 0);
        }
        let behind = next.by_ref().take(joined).map(|command| match command {
            Command::Publish(publication) => publication,
            _ => unreachable!("only publications are joined"),
        });
        let publications: Vec<_> = iter::once(first).chain(behind).collect();
        self.publish_joined(&publications, next.len() == 0);
    }

    fn publish_one(&mut self, publication: &Publication, is_last: bool) {
        // In the order of the members.
        let mut skipped = publication.skipped.iter().peekable();
        self.deal(&publication.members, is_last, |shard, entry| {
            let is_left_out = Some(entry.id) == publication.except;
            if !is_left_out && skipped.next_if_eq(&&entry.id).is_none() {
                shard.deliver(entry, publication.frames.of(entry));
            }
        });
    }

    fn publish_joined(&mut self, publications: &[Box<Publication>], is_last: bool) {
        let frames: Vec<&[u8]> = publications
            .iter()
            .map(|one| &**one.frames.plain())
            .collect();
        let longest = frames.iter().map(|frame| frame.len()).max().unwrap_or(0);
        let frames = Bytes::from(frames.concat());
        let messages = publications.len() as u64;
        let mut excepted: Vec<SocketId> =
            publications.iter().filter_map(|one| one.except).collect();
        excepted.sort_unstable();
        excepted.dedup();
        self.deal(&publications[0].members, is_last, |shard, entry| {
            // No payload is longer than the longest frame.
            if entry.takes_plain(longest) && excepted.binary_search(&entry.id).is_err() {
                return shard.deliver_joined(entry, &frames, messages);
            }
            for publication in publications {
                if publication.except != Some(entry.id) {
                    shard.deliver(entry, publication.frames.of(entry));
                }
            }
        });
    }

    /// Goes through the members. What is the last of a turn is written chunk by chunk, if there are several: what is touched to
    /// queue a message for a socket is still in a cache then.
    fn deal(
        &mut self,
        members: &Snapshot,
        is_last: bool,
        mut deliver: impl FnMut(&mut Self, &Arc<SocketEntry>),
    ) {
        let in_pieces = is_last && members.len() > 1;
        for chunk in members.iter() {
            for entry in chunk.iter() {
                deliver(self, entry);
            }
            if in_pieces {
                self.write_dirty();
            }
        }
    }
}

/// How many of these commands publish to the same members as the first, and can be joined with it.
fn joined_with(first: &Publication, next: &[Command]) -> usize {
    if !is_simple(first) {
        return 0;
    }
    let mut bytes = first.frames.plain().len();
    let joins = |command: &&Command| {
        let Command::Publish(publication) = command else {
            return false;
        };
        bytes += publication.frames.plain().len();
        Arc::ptr_eq(&publication.members, &first.members)
            && is_simple(publication)
            && bytes <= RUN_BYTES
    };
    next.iter().take_while(joins).count()
}

/// Small, and there was room for it everywhere: one member that reads too slowly has its room's messages dealt one by one.
fn is_simple(publication: &Publication) -> bool {
    publication.skipped.is_empty() && publication.frames.plain().len() <= COPY_UP_TO
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Frames;

    fn publication(members: &Snapshot, bytes: usize) -> Publication {
        Publication {
            frames: Frames::new(vec![0; bytes].into()),
            members: Arc::clone(members),
            except: None,
            skipped: Vec::new(),
        }
    }

    fn commands(publications: impl IntoIterator<Item = Publication>) -> Vec<Command> {
        let boxed = publications.into_iter().map(Box::new);
        boxed.map(Command::Publish).collect()
    }

    #[test]
    fn small_messages_to_the_same_members_are_joined() {
        let members = Snapshot::default();
        let of = |bytes| publication(&members, bytes);
        let first = of(100);
        let but_one = Publication {
            except: SocketId::new(1),
            ..of(100)
        };
        let next = commands([of(1), but_one, of(COPY_UP_TO)]);
        assert_eq!(joined_with(&first, &next), 3);
        assert_eq!(joined_with(&first, &[]), 0);
    }

    #[test]
    fn whatever_else_comes_is_not_overtaken() {
        let members = Snapshot::default();
        let of = |bytes| publication(&members, bytes);
        let skipping = || Publication {
            skipped: SocketId::new(1).into_iter().collect(),
            ..of(100)
        };
        let others = [
            publication(&Snapshot::default(), 100),
            of(COPY_UP_TO + 1),
            skipping(),
        ];
        for other in others {
            let next = commands([of(100), other, of(100)]);
            assert_eq!(joined_with(&of(100), &next), 1);
        }
        let mut next = commands([of(100), of(100)]);
        next.insert(1, Command::Alert);
        assert_eq!(joined_with(&of(100), &next), 1);
        // Nor does one of these take others along.
        for first in [of(COPY_UP_TO + 1), skipping()] {
            assert_eq!(joined_with(&first, &next), 0);
        }
    }

    #[test]
    fn what_is_joined_has_an_end() {
        let members = Snapshot::default();
        let first = publication(&members, COPY_UP_TO);
        let many = RUN_BYTES / COPY_UP_TO + 10;
        let next = commands((0..many).map(|_| publication(&members, COPY_UP_TO)));
        let joined = joined_with(&first, &next);
        assert_eq!((joined + 1) * COPY_UP_TO, RUN_BYTES);
    }
}
