//! A folder of definitions: `catalog.yaml`, and a campaign in every other file.
//!
//! Works on names and texts that somebody else has read, so that files, embedded samples and tests go the same way.

use super::catalog::Catalog;
use super::check::{check_campaign, check_catalog, check_unique};
use super::definition::Campaign;
use super::diagnostic::{Diagnostic, has_errors};
use super::yaml::{Parsed, parse_campaign_with_source, parse_catalog_with_source};

/// File name of the catalog.
pub const CATALOG_FILE: &str = "catalog.yaml";

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// The catalog, if there is one that could be read.
    pub catalog: Option<Parsed<Catalog>>,
    /// The campaigns that could be read, in the order of the files.
    pub campaigns: Vec<Parsed<Campaign>>,
    /// What is wrong with the files, in their order; checks against a catalog come with [`Folder::check`].
    pub diagnostics: Vec<Diagnostic>,
    /// Whether there is a catalog file, readable or not.
    pub has_catalog_file: bool,
}

impl Folder {
    /// Reads files given as path and text.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Folder {
        let mut folder = Folder::default();
        for (path, text) in files {
            if path.rsplit('/').next() == Some(CATALOG_FILE) {
                folder.has_catalog_file = true;
                match parse_catalog_with_source(path, text) {
                    Ok(catalog) => folder.catalog = Some(catalog),
                    Err(problems) => folder.diagnostics.extend(problems),
                }
            } else {
                match parse_campaign_with_source(path, text) {
                    Ok(campaign) => folder.campaigns.push(campaign),
                    Err(problems) => folder.diagnostics.extend(problems),
                }
            }
        }
        folder.diagnostics.extend(check_unique(&folder.campaigns));
        folder
    }

    /// Checks the campaigns against the folder's catalog, else against `live`; without either, each by itself only. A
    /// catalog file that could not be read is reported already and stands for no catalog.
    pub fn check(&mut self, live: Option<&Catalog>) {
        let catalog = match &self.catalog {
            Some(catalog) => Some(&catalog.value),
            None => live.filter(|_| !self.has_catalog_file),
        };
        if let Some(parsed) = &self.catalog {
            let finding = check_catalog(&parsed.value);
            self.diagnostics.extend(finding.map(|finding| finding.locate(&parsed.source)));
        }
        for campaign in &self.campaigns {
            let findings = check_campaign(&campaign.value, catalog);
            self.diagnostics.extend(findings.into_iter().map(|finding| finding.locate(&campaign.source)));
        }
    }

    /// Whether something forbids publishing.
    pub fn has_errors(&self) -> bool {
        has_errors(&self.diagnostics)
    }

    /// How many definitions could be read.
    pub fn len(&self) -> usize {
        self.campaigns.len() + usize::from(self.catalog.is_some())
    }

    /// Whether nothing could be read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMPAIGN: &str = "id: a\ntrigger: purchase\naction: { type: alert }\nwhen: { history: { event: purchase, fn: exists } }\n";

    fn codes(folder: &Folder) -> Vec<&str> {
        folder.diagnostics.iter().map(|one| one.code.as_str()).collect()
    }

    #[test]
    fn every_file_counts_and_every_problem_is_told() {
        let mut folder = Folder::read([
            ("dir/a.yaml", CAMPAIGN),
            ("dir/b.yaml", CAMPAIGN),
            ("dir/c.yaml", "id: c\n"),
            ("dir/catalog.yaml", "remember: {}\n"),
        ]);
        folder.check(None);
        assert_eq!(folder.len(), 3);
        assert_eq!(codes(&folder), ["C0011", "C0011", "C0106", "C0100", "C0100"]);
        assert!(folder.has_errors());
    }

    #[test]
    fn the_live_catalog_stands_in_for_a_folder_without_one() {
        let mut folder = Folder::read([("a.yaml", CAMPAIGN)]);
        folder.check(Some(&Catalog::default()));
        assert_eq!(codes(&folder), ["C0100"]);
        let mut folder = Folder::read([("a.yaml", CAMPAIGN)]);
        folder.check(None);
        assert!(folder.diagnostics.is_empty());
        let mut folder = Folder::read([("a.yaml", CAMPAIGN), ("catalog.yaml", "nonsense")]);
        folder.check(Some(&Catalog::default()));
        assert_eq!(codes(&folder), ["C0012"], "an unreadable catalog is not replaced by the live one");
    }

    /// Rule S9: a cell that is too large would fail again after every restart.
    #[test]
    fn a_catalog_that_makes_states_too_large_is_refused() {
        let catalog = |at_most: u32| {
            format!("remember:\n  view: {{ for: 30d, at_most: {at_most}, properties: [a, b, c, d] }}\n")
        };
        let codes_at = |at_most: u32| {
            let text = catalog(at_most);
            let mut folder = Folder::read([("catalog.yaml", text.as_str())]);
            folder.check(None);
            codes(&folder).into_iter().map(str::to_owned).collect::<Vec<String>>()
        };
        assert!(codes_at(3_700).is_empty());
        assert_eq!(codes_at(4_000), ["C0107"]);
    }
}
