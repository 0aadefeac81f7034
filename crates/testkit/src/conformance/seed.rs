//! Randomness that can be repeated.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// A generator whose seed is printed; GATEFEED_TEST_SEED sets it.
pub fn rng(case: &str) -> StdRng {
    let set = std::env::var("GATEFEED_TEST_SEED").ok();
    let seed = set.map_or_else(|| rand::rng().random(), |s| s.parse().expect("GATEFEED_TEST_SEED: a number"));
    eprintln!("{case}: GATEFEED_TEST_SEED={seed} repeats this");
    StdRng::seed_from_u64(seed)
}
