//! What is pushed where.

/// A case; the limit is measured in each of them.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    /// A partition that the same transaction makes, and ids that grow, as those that the client makes up do.
    New,
    /// A partition that has been made before. It has no items, but it could have.
    Existing,
    /// A new partition, and ids in no order.
    Scattered,
}

impl Case {
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Existing, Self::Scattered];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::New => "new partition",
            Self::Existing => "existing partition",
            Self::Scattered => "ids that do not grow",
        }
    }

    pub(crate) fn is_existing(self) -> bool {
        matches!(self, Self::Existing)
    }

    /// One of its own for each way, case and round.
    pub(crate) fn partition(self, way: &str, round: usize) -> String {
        format!("{way} {} {round}", self.name())
    }

    /// Up to 10^9 different ones, of one length.
    pub(crate) fn id(self, number: usize) -> String {
        let number = match self {
            Self::New | Self::Existing => number as u64,
            // Without a common factor with 10^9: each is met once.
            Self::Scattered => number as u64 * 618_033_989 % 1_000_000_000,
        };
        format!("page-{number:09}")
    }
}
