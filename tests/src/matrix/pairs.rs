// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A covering of pairs: few cells, in which every two values that can meet do meet.
//!
//! Greedy: the next cell is the one with the most pairs that no cell before it has. Among equals it is the one whose
//! [`Covered::rank`] comes first, so that the same cells give the same covering on every machine.

use std::collections::HashSet;

/// A combination of values, as a covering sees it.
pub trait Covered {
    /// What is to be covered: pairs of values, or values alone.
    fn goals(&self) -> Vec<u64>;
    /// What comes first among equals.
    fn rank(&self) -> u64;
}

/// The places of the chosen cells, in the order in which they were chosen.
pub fn cover<C: Covered>(cells: &[C]) -> Vec<usize> {
    let goals: Vec<Vec<u64>> = cells.iter().map(Covered::goals).collect();
    let mut open: HashSet<u64> = goals.iter().flatten().copied().collect();
    let mut chosen = Vec::new();
    // What a cell adds only shrinks, so one that added little lately need not be looked at before the others.
    let mut candidates: Vec<(usize, u64, usize)> =
        (0..).zip(cells).map(|(at, cell)| (usize::MAX, cell.rank(), at)).collect();
    while !open.is_empty() {
        candidates.sort_unstable_by_key(|(adds, rank, _)| (usize::MAX - adds, *rank));
        let mut best: Option<(usize, u64, usize)> = None;
        for (bound, rank, at) in &mut candidates {
            let beaten = |best: &(usize, u64, usize)| {
                best.0 > *bound || (best.0 == *bound && best.1 <= *rank)
            };
            if best.as_ref().is_some_and(beaten) {
                break;
            }
            let adds = goals[*at].iter().filter(|goal| open.contains(goal)).count();
            *bound = adds;
            if best.is_none_or(|best| adds > best.0 || (adds == best.0 && *rank < best.1)) {
                best = Some((adds, *rank, *at));
            }
        }
        let Some((adds, _, at)) = best else { break };
        if adds == 0 {
            break;
        }
        for goal in &goals[at] {
            open.remove(goal);
        }
        chosen.push(at);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    struct Sample(Vec<u64>);

    impl Covered for Sample {
        fn goals(&self) -> Vec<u64> {
            let mut goals = Vec::new();
            for (i, one) in (0..).zip(&self.0) {
                for (j, two) in (0..).zip(&self.0).skip(i as usize + 1) {
                    goals.push(((i * 16 + j) << 16) | (one << 8) | two);
                }
            }
            goals
        }

        fn rank(&self) -> u64 {
            self.0.iter().fold(0, |rank, value| rank * 16 + value)
        }
    }

    fn all(sizes: &[u64]) -> Vec<Sample> {
        sizes.iter().fold(vec![Sample(Vec::new())], |cells, size| {
            let next = |cell: &Sample| {
                let cell = cell.clone();
                (0..*size).map(move |value| Sample([cell.0.clone(), vec![value]].concat()))
            };
            cells.iter().flat_map(next).collect()
        })
    }

    fn covered(cells: &[Sample], chosen: &[usize]) -> HashSet<u64> {
        chosen.iter().flat_map(|at| cells[*at].goals()).collect()
    }

    #[test]
    fn every_pair_is_covered_by_few_cells() {
        for (sizes, most) in [(&[2u64, 2, 2, 2][..], 6), (&[5, 4, 3, 2, 2], 26), (&[9, 6, 4], 60)] {
            let cells = all(sizes);
            let chosen = cover(&cells);
            let everything: Vec<usize> = (0..cells.len()).collect();
            assert_eq!(covered(&cells, &chosen), covered(&cells, &everything));
            assert!(chosen.len() <= most, "{sizes:?}: {}", chosen.len());
        }
    }

    #[test]
    fn what_cannot_be_is_not_chosen_and_all_that_is_left_is_covered() {
        let mut cells = all(&[4, 4, 3]);
        cells.retain(|cell| cell.0[0] != cell.0[1] && !(cell.0[0] == 2 && cell.0[2] == 1));
        let everything: Vec<usize> = (0..cells.len()).collect();
        assert_eq!(covered(&cells, &cover(&cells)), covered(&cells, &everything));
    }

    #[test]
    fn the_covering_does_not_depend_on_the_order_of_the_cells() {
        let cells = all(&[4, 3, 3, 2]);
        let names = |cells: &[Sample]| -> Vec<u64> {
            cover(cells).into_iter().map(|at| cells[at].rank()).collect()
        };
        let mut turned = cells.clone();
        turned.reverse();
        assert_eq!(names(&cells), names(&turned));
    }

    #[test]
    fn each_cell_adds_something() {
        let cells = all(&[5, 4, 3, 2]);
        let mut seen = HashSet::new();
        for at in cover(&cells) {
            let before = seen.len();
            seen.extend(cells[at].goals());
            assert!(seen.len() > before);
        }
    }
}
