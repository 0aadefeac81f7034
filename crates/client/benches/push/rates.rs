//! What was measured.

use std::time::Duration;

use crate::case::Case;

/// Items a second, round by round.
#[derive(Default)]
pub(crate) struct Rates {
    limit: Vec<f64>,
    push: Vec<f64>,
}

impl Rates {
    pub(crate) fn note(&mut self, items: usize, limit: Duration, push: Duration) {
        self.limit.push(items as f64 / limit.as_secs_f64());
        self.push.push(items as f64 / push.as_secs_f64());
    }

    pub(crate) fn show(&self, database: &str, case: Case, limit: &str) {
        let title = format!("{database}, {}", case.name());
        for (n, (limit_rate, push_rate)) in self.limit.iter().zip(&self.push).enumerate() {
            println!("{title}, round {}: {limit} {limit_rate:>9.0}/s   push_many {push_rate:>9.0}/s", n + 1);
        }
        let (limit_rate, push_rate) = (median(&self.limit), median(&self.push));
        println!("{title}, medians: {limit} {limit_rate:>9.0}/s   push_many {push_rate:>9.0}/s");
        println!("{title}, ratio: {:.2}", push_rate / limit_rate);
    }
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
