//! What threads publish, on its way to the members of this shard.
//!
//! A busy channel has many small messages in the inbox when the shard comes to it. Those that follow each other are joined
//! before they are dealt, so that a member gets one piece of memory, which it shares with all others. One that is compressed
//! for several receivers, or left out for some, is dealt alone.

use std::iter;
use std::sync::Arc;
use std::vec::Drain;

use bytes::Bytes;

use super::inbox::{Command, CopiedPublication};
use super::turn::Shard;
use crate::broker::Publication;
use crate::channel::Snapshot;
use crate::id::SocketId;
use crate::outbox::RUN_BYTES;
use crate::registry::SocketEntry;

impl Shard {
    /// Publishes a message. If it is the last command of the inbox, nothing waits that could leave together with it.
    pub(super) fn publish(&mut self, publication: &Publication, is_last: bool) {
        // In the order of the members.
        let mut skipped = publication.skipped.iter().peekable();
        self.deal(&publication.members, is_last, |shard, entry| {
            let is_left_out = Some(entry.id) == publication.except;
            if !is_left_out && skipped.next_if_eq(&&entry.id).is_none() {
                shard.deliver(entry, publication.frames.of(entry));
            }
        });
    }

    /// Publishes a small message, and with it those of the next commands that can be joined with it. `bytes` begins with
    /// their frames.
    pub(super) fn publish_copied(
        &mut self,
        first: CopiedPublication,
        next: &mut Drain<'_, Command>,
        bytes: &mut &[u8],
    ) {
        // One member has nobody to share a piece with.
        let is_shared = first.members.iter().map(|chunk| chunk.len()).sum::<usize>() > 1;
        if !is_shared {
            let frame = split_frames(bytes, first.length as usize);
            return self.deal(&first.members, next.len() == 0, |shard, entry| {
                if Some(entry.id) != first.except {
                    shard.deliver_small(entry, frame);
                }
            });
        }
        let joined = joined_with(&first, next.as_slice());
        if joined == 0 {
            let frame = Bytes::copy_from_slice(split_frames(bytes, first.length as usize));
            return self.deal(&first.members, next.len() == 0, |shard, entry| {
                if Some(entry.id) != first.except {
                    shard.deliver(entry, &frame);
                }
            });
        }
        let behind = next.by_ref().take(joined).map(|command| match command {
            Command::PublishCopied(publication) => publication,
            _ => unreachable!("only small publications are joined"),
        });
        let publications: Vec<_> = iter::once(first).chain(behind).collect();
        let length = publications.iter().map(|one| one.length as usize).sum();
        let frames = Bytes::copy_from_slice(split_frames(bytes, length));
        self.publish_joined(&publications, &frames, next.len() == 0);
    }

    fn publish_joined(
        &mut self,
        publications: &[CopiedPublication],
        frames: &Bytes,
        is_last: bool,
    ) {
        let longest = publications.iter().map(|one| one.length).max();
        let longest = longest.unwrap_or(0) as usize;
        let messages = publications.len() as u64;
        let mut excepted: Vec<SocketId> =
            publications.iter().filter_map(|one| one.except).collect();
        excepted.sort_unstable();
        excepted.dedup();
        self.deal(&publications[0].members, is_last, |shard, entry| {
            // No payload is longer than the longest frame.
            if entry.takes_plain(longest) && excepted.binary_search(&entry.id).is_err() {
                return shard.deliver_joined(entry, frames, messages);
            }
            let mut rest: &[u8] = frames;
            for publication in publications {
                let (frame, behind) = rest.split_at(publication.length as usize);
                rest = behind;
                if publication.except != Some(entry.id) {
                    shard.deliver_small(entry, frame);
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

/// So many bytes of an inbox, which are frames.
fn split_frames<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    bytes.split_off(..length).expect("put in with the command")
}

/// How many of these commands publish to the same members as the first, and can be joined with it.
fn joined_with(first: &CopiedPublication, next: &[Command]) -> usize {
    let mut bytes = first.length as usize;
    let joins = |command: &&Command| {
        let Command::PublishCopied(publication) = command else {
            return false;
        };
        bytes += publication.length as usize;
        Arc::ptr_eq(&publication.members, &first.members) && bytes <= RUN_BYTES
    };
    next.iter().take_while(joins).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Frames;
    use crate::outbox::COPY_UP_TO;

    fn publication(members: &Snapshot, length: usize) -> CopiedPublication {
        CopiedPublication {
            members: Arc::clone(members),
            except: None,
            length: length as u32,
        }
    }

    fn commands(publications: impl IntoIterator<Item = CopiedPublication>) -> Vec<Command> {
        publications
            .into_iter()
            .map(Command::PublishCopied)
            .collect()
    }

    #[test]
    fn small_messages_to_the_same_members_are_joined() {
        let members = Snapshot::default();
        let of = |bytes| publication(&members, bytes);
        let first = of(100);
        let but_one = CopiedPublication {
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
        for other in [
            Command::PublishCopied(publication(&Snapshot::default(), 100)),
            Command::Publish(Box::new(Publication {
                frames: Frames::new(Bytes::new()),
                members: Arc::clone(&members),
                except: None,
                skipped: Vec::new(),
            })),
            Command::DeliverCopied { frames: 1 },
            Command::Alert,
        ] {
            let mut next = commands([of(100), of(100)]);
            next.insert(1, other);
            assert_eq!(joined_with(&of(100), &next), 1);
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
