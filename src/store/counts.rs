//! Judgements counted: by yardstick, grade, drift and probability; and their compact form, one for each
//! span of time and combination of labels, so that a window is read in few rows.
//!
//! The form is private to the index, which can be made anew: for each yardstick its name after its length
//! (two bytes), the place of its scale (one) and the number of its classes (two); for each class the grade (two bytes), drift
//! (one), the bits of the probability (eight) and of the least one (eight), and the count (eight), all
//! little-endian.

use std::collections::BTreeMap;

use crate::domain::{Grade, Scale, Yardstick};

/// What stands for no grade.
pub(super) const NO_GRADE: i16 = -1;

/// What judgements have in common that are counted as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    /// See [`grade_code`].
    pub(super) grade: i16,
    pub(super) drift: bool,
    /// The bits of the probability.
    pub(super) probability: u64,
    /// Those of the least that any sample had then.
    pub(super) least: u64,
}

/// Counts of the classes of each yardstick. While they are gathered, some may be below zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts(BTreeMap<Yardstick, BTreeMap<Class, i64>>);

impl Counts {
    pub(super) fn add(&mut self, by: &Yardstick, class: Class, n: i64) {
        if let Some(classes) = self.0.get_mut(by) {
            *classes.entry(class).or_default() += n;
        } else {
            self.0.insert(by.clone(), BTreeMap::from([(class, n)]));
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (by, classes) in &other.0 {
            classes.iter().for_each(|(class, n)| self.add(by, *class, *n));
        }
    }

    /// The compact form, without what counts nothing.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        for (by, classes) in &self.0 {
            let counted: Vec<_> = classes.iter().filter(|(_, n)| **n > 0).collect();
            let label = by.label().as_bytes();
            let sizes = (u16::try_from(label.len()), u16::try_from(counted.len()));
            let ((Ok(length), Ok(many)), false) = (sizes, counted.is_empty()) else { continue };
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(label);
            out.push(scale_code(by.scale));
            out.extend_from_slice(&many.to_le_bytes());
            for (class, n) in counted {
                out.extend_from_slice(&class.grade.to_le_bytes());
                out.push(u8::from(class.drift));
                out.extend_from_slice(&class.probability.to_le_bytes());
                out.extend_from_slice(&class.least.to_le_bytes());
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
        out
    }

    /// Reads the compact form; `None` for anything else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut counts = Self::default();
        read(bytes, |by, class, n| counts.add(by, class, n))?;
        Some(counts)
    }
}

/// Hands every count of a compact form to `each`; `None` where it is not one.
pub(super) fn read(mut bytes: &[u8], mut each: impl FnMut(&Yardstick, Class, i64)) -> Option<()> {
    while !bytes.is_empty() {
        let length = u16::from_le_bytes(take(&mut bytes)?);
        let (label, rest) = bytes.split_at_checked(usize::from(length))?;
        bytes = rest;
        let [scale] = take(&mut bytes)?;
        let by = yardstick(std::str::from_utf8(label).ok()?, usize::from(scale));
        for _ in 0..u16::from_le_bytes(take(&mut bytes)?) {
            let class = Class {
                grade: i16::from_le_bytes(take(&mut bytes)?),
                drift: take::<1>(&mut bytes)? != [0],
                probability: u64::from_le_bytes(take(&mut bytes)?),
                least: u64::from_le_bytes(take(&mut bytes)?),
            };
            each(&by, class, i64::from_le_bytes(take(&mut bytes)?));
        }
    }
    Some(())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

/// The yardstick of a name and its scale's place.
pub(super) fn yardstick(label: &str, scale: usize) -> Yardstick {
    Yardstick::named(label, Scale::ALL.get(scale).copied().unwrap_or(Scale::Score))
}

/// The place of a scale in [`Scale::ALL`].
pub(super) fn scale_code(scale: Scale) -> u8 {
    scale as u8
}

/// A score, or the thousandths of a value; [`NO_GRADE`] for none.
pub(super) fn grade_code(grade: Option<Grade>) -> i16 {
    match grade {
        None => NO_GRADE,
        Some(Grade::Score(score)) => i16::from(score),
        Some(Grade::Thousandths(of)) => i16::try_from(of).unwrap_or(i16::MAX),
    }
}

/// What a code says on this scale.
pub(super) fn grade_of(scale: Scale, code: i16) -> Option<Grade> {
    match scale {
        Scale::Score => u8::try_from(code).ok().map(Grade::Score),
        Scale::Ratio | Scale::Boolean => u16::try_from(code).ok().map(Grade::Thousandths),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Criterion;

    fn classes() -> impl Strategy<Value = Vec<(usize, i16, bool, f64, i64)>> {
        let one = (0_usize..3, -1_i16..=1000, any::<bool>(), 0.01_f64..1.0, 1_i64..1_000_000);
        prop::collection::vec(one, 0..40)
    }

    fn counts(of: &[(usize, i16, bool, f64, i64)]) -> Counts {
        let known = |criterion| Yardstick::of(criterion).expect("everybody's");
        let yardsticks = [
            known(Criterion::Fluency),
            known(Criterion::F1),
            Yardstick::named("politeness", Scale::Boolean),
        ];
        let mut counts = Counts::default();
        for (by, grade, drift, probability, n) in of {
            let (probability, least) = (probability.to_bits(), (probability / 2.0).to_bits());
            let class = Class { grade: *grade, drift: *drift, probability, least };
            counts.add(&yardsticks[*by], class, *n);
        }
        counts
    }

    proptest! {
        #[test]
        fn the_compact_form_is_read_back_and_what_is_taken_away_is_gone(
            left in classes(), right in classes()
        ) {
            let (left, right) = (counts(&left), counts(&right));
            let again = Counts::from_bytes(&left.to_bytes()).expect("our own");
            prop_assert_eq!(&again, &left);
            let mut both = left.clone();
            both.merge(&right);
            for (by, classes) in &right.0 {
                classes.iter().for_each(|(class, n)| both.add(by, *class, -n));
            }
            prop_assert_eq!(both.to_bytes(), left.to_bytes());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Counts::from_bytes(&bytes));
        }
    }
}
