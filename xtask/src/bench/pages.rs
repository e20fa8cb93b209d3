//! The figures in the pages of `docs`: the second cell of each table row whose first names one.

use super::Figures;
use crate::paths;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

/// The pages that show some.
fn pages() -> [PathBuf; 1] {
    ["docs/mte.md"].map(|page| paths::root().join(page))
}

/// Writes the figures into the pages.
pub(super) fn update(figures: &Figures) -> Result<()> {
    for page in pages() {
        fs::write(&page, with_figures(&fs::read_to_string(&page)?, figures))?;
    }
    Ok(())
}

fn with_figures(page: &str, figures: &Figures) -> String {
    let lines = page.lines().map(|line| row(line, figures).unwrap_or_else(|| line.to_owned()));
    lines.map(|line| line + "\n").collect()
}

/// `line` with its figure, if it has one.
fn row(line: &str, figures: &Figures) -> Option<String> {
    let mut cells: Vec<&str> = line.split('|').collect();
    let first = cells.get(1).filter(|_| line.starts_with('|'))?;
    let (_, figure) = figures.iter().find(|(name, _)| first.contains(&format!("`{name}`")))?;
    let figure = format!(" {} ", in_thousands(*figure));
    *cells.get_mut(2)? = &figure;
    Some(cells.join("|"))
}

/// 1234567 as 1,234,567.
fn in_thousands(number: u64) -> String {
    if number < 1000 {
        return number.to_string();
    }
    format!("{},{:03}", in_thousands(number / 1000), number % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::committed;

    #[test]
    fn second_cells_get_the_figures() {
        let figures = Figures::from([("a".into(), 1_002_003), ("b".into(), 7)]);
        let page = "| `a`: it | 4 | x |\n| b | 5 |\nof `a` | 6 |\n";
        assert_eq!(with_figures(page, &figures), "| `a`: it | 1,002,003 | x |\n| b | 5 |\nof `a` | 6 |\n");
    }

    #[test]
    fn pages_have_the_committed_figures() {
        let committed = committed().unwrap();
        for page in pages() {
            let text = fs::read_to_string(&page).unwrap();
            assert_eq!(text, with_figures(&text, &committed), "`cargo xtask bench --update` mends it");
            assert!(committed.keys().any(|name| text.contains(&format!("| `{name}`"))), "{}", page.display());
        }
    }
}
