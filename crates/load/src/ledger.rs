//! What came, against what was sent: missing, duplicated, disordered, damaged.

use std::collections::BTreeSet;

use serde::Serialize;

/// Every one of them has to be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Faults {
    /// Sent, and never came.
    pub(crate) missing: u64,
    /// Came more than once.
    pub(crate) duplicated: u64,
    /// Came after a later one of the same sender.
    pub(crate) disordered: u64,
    /// Was not what was sent, or was for somebody else.
    pub(crate) damaged: u64,
    /// Connections that ended although nobody had closed them.
    pub(crate) broken: u64,
}

impl Faults {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A gap larger than this is no gap but a damaged number.
const LARGEST_GAP: u64 = 1 << 20;

/// What one receiver may expect of one sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation {
    next: u64,
    /// Numbers that were skipped; empty, and not on the heap, until something goes wrong.
    skipped: BTreeSet<u64>,
}

impl Expectation {
    /// Notes a message with this number. `true` when it came for the first time.
    pub(crate) fn note(&mut self, sequence: u64, faults: &mut Faults) -> bool {
        if sequence == self.next {
            self.next += 1;
            return true;
        }
        if sequence > self.next {
            if sequence - self.next > LARGEST_GAP {
                faults.damaged += 1;
                return false;
            }
            self.skipped.extend(self.next..sequence);
            self.next = sequence + 1;
            return true;
        }
        let was_skipped = self.skipped.remove(&sequence);
        if was_skipped {
            faults.disordered += 1;
        } else {
            faults.duplicated += 1;
        }
        was_skipped
    }

    /// `sent` were sent; what has not come by now is missing.
    pub(crate) fn settle(&self, sent: u64, faults: &mut Faults) {
        faults.missing += sent.saturating_sub(self.next) + self.skipped.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(came: &[u64], sent: u64) -> Faults {
        let mut faults = Faults::default();
        let mut expectation = Expectation::default();
        for sequence in came {
            expectation.note(*sequence, &mut faults);
        }
        expectation.settle(sent, &mut faults);
        faults
    }

    #[test]
    fn each_once_and_in_order_is_no_fault() {
        assert!(faults_of(&[0, 1, 2, 3], 4).is_none());
    }

    #[test]
    fn faults_are_told_apart() {
        let none = Faults::default();
        for (came, expected) in [
            (&[0, 1, 3][..], Faults { missing: 1, ..none }),
            (&[0, 1, 2], Faults { missing: 1, ..none }),
            (
                &[0, 1, 1, 2, 3],
                Faults {
                    duplicated: 1,
                    ..none
                },
            ),
            (
                &[0, 2, 1, 3],
                Faults {
                    disordered: 1,
                    ..none
                },
            ),
            (
                &[0, 2, 1, 1, 3],
                Faults {
                    disordered: 1,
                    duplicated: 1,
                    ..none
                },
            ),
            (&[0, 1, 2, 3, u64::MAX], Faults { damaged: 1, ..none }),
        ] {
            assert_eq!(faults_of(came, 4), expected, "{came:?}");
        }
    }
}
