//! Ranking: which words a text has, and BM25, the usual measure for how well it fits a query.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// How soon another occurrence of a word counts for less.
const SATURATION: f64 = 1.2;

/// How much long documents are held back.
const LENGTH_WEIGHT: f64 = 0.75;

/// What is remembered of a document.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Document {
    /// Its words.
    pub(crate) length: u64,
    /// How often it has each word of the query, if at all.
    pub(crate) terms: BTreeMap<String, u64>,
}

/// A document that has at least one word of the query.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Ranked {
    /// The item's id.
    pub(crate) id: String,
    /// The higher, the better it fits.
    pub(crate) score: f64,
    /// How often it has each word.
    pub(crate) matches: BTreeMap<String, u64>,
}

/// The words of a text: lowercase letters and digits.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// Letter by letter, so that a word looks the same wherever it stands (Greek has a final sigma).
fn lowercase(word: &str) -> impl Iterator<Item = char> {
    word.chars().flat_map(char::to_lowercase)
}

/// The different words of a query.
pub(crate) fn terms(query: &str) -> BTreeSet<String> {
    words(query).map(|word| lowercase(word).collect()).collect()
}

/// Reads a document, whatever its bytes are.
pub(crate) fn read(bytes: &[u8], terms: &BTreeSet<String>) -> Document {
    let text = String::from_utf8_lossy(bytes);
    let mut document = Document::default();
    let mut lower = String::new();
    for word in words(&text) {
        document.length += 1;
        lower.clear();
        lower.extend(lowercase(word));
        if let Some(term) = terms.get(&lower) {
            *document.terms.entry(term.clone()).or_default() += 1;
        }
    }
    document
}

/// The best `top` documents, best first; equal ones by id.
pub(crate) fn rank(
    documents: &BTreeMap<String, Document>,
    terms: &BTreeSet<String>,
    top: usize,
) -> Vec<Ranked> {
    let corpus = Corpus::of(documents, terms);
    let mut ranking: Vec<_> = documents
        .iter()
        .filter(|(_, document)| !document.terms.is_empty())
        .map(|(id, document)| Ranked {
            id: id.clone(),
            score: corpus.score(document),
            matches: document.terms.clone(),
        })
        .collect();
    ranking.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
    ranking.truncate(top);
    ranking
}

/// What scores need to know of all documents: this is why ranking has to wait for the last of them.
struct Corpus {
    average_length: f64,
    /// How telling each word is: one that all documents have says little.
    weights: BTreeMap<String, f64>,
}

impl Corpus {
    fn of(documents: &BTreeMap<String, Document>, terms: &BTreeSet<String>) -> Self {
        let number = documents.len() as f64;
        let words: u64 = documents.values().map(|document| document.length).sum();
        let weight = |term: &String| {
            let having = documents.values().filter(|d| d.terms.contains_key(term)).count() as f64;
            (1.0 + (number - having + 0.5) / (having + 0.5)).ln()
        };
        Self {
            average_length: (words as f64 / number.max(1.0)).max(1.0),
            weights: terms.iter().map(|term| (term.clone(), weight(term))).collect(),
        }
    }

    fn score(&self, document: &Document) -> f64 {
        let relative_length = document.length as f64 / self.average_length;
        let held_back = SATURATION * (1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * relative_length);
        let of_term = |(term, count): (&String, &u64)| {
            let count = *count as f64;
            let weight = self.weights.get(term).copied().unwrap_or(0.0);
            weight * count * (SATURATION + 1.0) / (count + held_back)
        };
        document.terms.iter().map(of_term).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(query: &str, texts: &[(&str, &str)]) -> Vec<Ranked> {
        let terms = terms(query);
        let documents =
            texts.iter().map(|(id, text)| ((*id).to_owned(), read(text.as_bytes(), &terms))).collect();
        rank(&documents, &terms, 10)
    }

    fn ids(ranking: &[Ranked]) -> Vec<&str> {
        ranking.iter().map(|ranked| ranked.id.as_str()).collect()
    }

    #[test]
    fn words_are_lowercase_letters_and_digits_of_any_script() {
        let document =
            read("Rust, RUST! écrit-ÉCRIT 日本 x86\n\u{1b}[0m".as_bytes(), &terms("rust Écrit 日本"));
        assert_eq!(document.length, 7);
        let expected = [("rust", 2), ("écrit", 2), ("日本", 1)].map(|(term, n)| (term.to_owned(), n));
        assert_eq!(document.terms, BTreeMap::from(expected));
    }

    #[test]
    fn bytes_that_are_no_text_and_nothing_at_all_are_documents_too() {
        assert_eq!(read(b"", &terms("rust")), Document::default());
        assert_eq!(read(b"\xff\xferust\x00\x80rust", &terms("rust")).terms["rust"], 2);
    }

    #[test]
    fn the_score_is_bm25() {
        let ranking = ranking("a", &[("1", "a b"), ("2", "b b")]);
        // ln(1 + 1.5 / 1.5) · 1 · 2.2 / (1 + 1.2)
        assert_eq!(ids(&ranking), ["1"]);
        assert!((ranking[0].score - 2f64.ln()).abs() < 1e-12, "{}", ranking[0].score);
    }

    #[test]
    fn rare_words_short_documents_and_more_of_the_words_win() {
        let texts = [
            ("long", "rust b c d e f g h i j k l m n o p"),
            ("common 1", "postgres b c d"),
            ("common 2", "postgres b c d"),
            ("common 3", "postgres b c d"),
            ("none", "bean c d e"),
            ("rare", "rust b c d"),
            ("both", "rust postgres c d"),
        ];
        let ranking = ranking("rust postgres", &texts);
        assert_eq!(ids(&ranking), ["both", "rare", "common 1", "common 2", "common 3", "long"]);
    }

    #[test]
    fn the_ranking_is_cut_and_may_be_empty() {
        let documents: BTreeMap<_, _> = (0..30)
            .map(|n| (format!("{n:02}"), Document { length: 1, terms: BTreeMap::from([("a".into(), 1)]) }))
            .collect();
        let top = rank(&documents, &terms("a"), 3);
        assert_eq!(ids(&top), ["00", "01", "02"]);
        assert!(rank(&documents, &terms("zebra"), 0).is_empty());
        assert!(ranking("zebra", &[("1", "a")]).is_empty());
    }
}
