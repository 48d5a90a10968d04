//! The sample campaigns, compiled in so that the demo needs no files.

/// Name and text of each file of `samples/campaigns`.
pub(super) const FILES: [(&str, &str); 8] = [
    ("cart_reminder.yaml", include_str!("../../samples/campaigns/cart_reminder.yaml")),
    ("catalog.yaml", include_str!("../../samples/campaigns/catalog.yaml")),
    ("early_purchase.yaml", include_str!("../../samples/campaigns/early_purchase.yaml")),
    ("full_cart.yaml", include_str!("../../samples/campaigns/full_cart.yaml")),
    ("gold_purchase.yaml", include_str!("../../samples/campaigns/gold_purchase.yaml")),
    ("insufficient_funds.yaml", include_str!("../../samples/campaigns/insufficient_funds.yaml")),
    ("suspected_fraud.yaml", include_str!("../../samples/campaigns/suspected_fraud.yaml")),
    ("welcome.yaml", include_str!("../../samples/campaigns/welcome.yaml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_the_demo() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/campaigns");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, FILES.map(|(name, _)| name));
    }
}
