//! What an operator calls an image: `P[/component]@V`.

use std::fmt;
use std::str::FromStr;

use dialhome_proto::id::is_name;
use dialhome_proto::manifest::is_version;
use thiserror::Error;

/// An image's name: product, component and version, as in `pump@1.4.0` or `pump/2@1.4.0`.
///
/// A product has neither `/` nor `@`, and a version has no `@`, so a name can be read in one way only.
/// Component 0 is left out when a name is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    /// The product, `[A-Za-z0-9_-]{1,64}`.
    pub product: String,
    /// The component, 0: the main one.
    pub component: u8,
    /// The version, `[A-Za-z0-9._+~-]{1,32}`.
    pub version: String,
}

/// What is wrong with an image's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// There is no `@`.
    #[error("`{0}` is not an image: write PRODUCT@VERSION, or PRODUCT/COMPONENT@VERSION")]
    NoVersion(String),
    /// The product is not a name.
    #[error("`{0}` is not a product: use 1 to 64 letters, digits, _ and -")]
    Product(String),
    /// The component is not a number.
    #[error("`{0}` is not a component: use a number from 0 to 255")]
    Component(String),
    /// The version is not one.
    #[error("`{0}` is not a version: use 1 to 32 letters, digits and . _ + ~ -")]
    Version(String),
}

impl ImageName {
    /// The name of the image with these parts.
    ///
    /// # Errors
    /// [`NameError`] of the product or of the version.
    pub fn new(product: &str, component: u8, version: &str) -> Result<Self, NameError> {
        if !is_name(product) {
            return Err(NameError::Product(product.into()));
        }
        if !is_version(version) {
            return Err(NameError::Version(version.into()));
        }
        Ok(Self {
            product: product.into(),
            component,
            version: version.into(),
        })
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (place, version) = text
            .split_once('@')
            .ok_or_else(|| NameError::NoVersion(text.into()))?;
        let (product, component) = match place.split_once('/') {
            None => (place, 0),
            // Only digits: a parser of numbers would take a sign as well.
            Some((product, number)) => match number.parse() {
                Ok(component) if !number.starts_with('+') => (product, component),
                _ => return Err(NameError::Component(number.into())),
            },
        };
        Self::new(product, component, version)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.component {
            0 => write!(f, "{}@{}", self.product, self.version),
            component => write!(f, "{}/{component}@{}", self.product, self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_says_which_part_is_wrong() {
        let error = |text: &str| text.parse::<ImageName>().unwrap_err();
        assert_eq!(error("pump"), NameError::NoVersion("pump".into()));
        assert_eq!(error(""), NameError::NoVersion(String::new()));
        assert_eq!(error("@1"), NameError::Product(String::new()));
        assert_eq!(error("pu mp@1"), NameError::Product("pu mp".into()));
        assert_eq!(error("pump@"), NameError::Version(String::new()));
        assert_eq!(error("pump@1@2"), NameError::Version("1@2".into()));
        assert_eq!(error("pump@1 beta"), NameError::Version("1 beta".into()));
        for component in ["", "256", "+1", "-1", "1/2", "modem"] {
            let text = format!("pump/{component}@1");
            assert_eq!(error(&text), NameError::Component(component.into()));
        }
    }

    #[test]
    fn the_main_component_is_left_out() {
        let name: ImageName = "pump/0@1.4.0".parse().unwrap();
        assert_eq!(name.to_string(), "pump@1.4.0");
        let name: ImageName = "pump/2@1.4.0".parse().unwrap();
        assert_eq!(
            (name.component, name.to_string().as_str()),
            (2, "pump/2@1.4.0")
        );
    }

    proptest! {
        #[test]
        fn a_written_name_reads_back(
            product in "[A-Za-z0-9_-]{1,64}", component: u8, version in "[A-Za-z0-9._+~-]{1,32}",
        ) {
            let name = ImageName::new(&product, component, &version).unwrap();
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }
    }
}
