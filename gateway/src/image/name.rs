//! What an operator calls an image: `P[/component]@V`; with several components `P/1,0@2.0,1.4`.

use std::fmt;
use std::str::FromStr;

use dialhome_proto::id::is_name;
use dialhome_proto::limits::COMPONENTS_MAX;
use dialhome_proto::manifest::is_version;
use thiserror::Error;

/// An image's name: product, and component and version of each of its parts, as in `pump@1.4.0`,
/// `pump/2@1.4.0` or `lamp/1,0@2.0,1.4`, in the order of installation.
///
/// A product has neither `/` nor `@`, and a version has no `@` and no comma, so a name can be read in one way
/// only. Component 0 is left out when the name of an image with one part is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    /// The product, `[A-Za-z0-9_-]{1,64}`.
    pub product: String,
    /// The parts, one to four, each component once.
    pub parts: Vec<NamedPart>,
}

/// A part of an image's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPart {
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
    /// Not as many versions as components.
    #[error("`{0}` names {1} and {2}: write PRODUCT/C,C@V,V with a version for each component")]
    Uneven(String, Components, Versions),
    /// More than four parts.
    #[error("`{0}` names more than 4 components")]
    TooMany(String),
    /// A component twice.
    #[error("`{0}` names component {1} twice")]
    Twice(String, u8),
}

/// A number of components, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Components(pub usize);

/// A number of versions, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions(pub usize);

impl fmt::Display for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} component{s}", self.0)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} version{s}", self.0)
    }
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
        let part = NamedPart {
            component,
            version: version.into(),
        };
        Ok(Self {
            product: product.into(),
            parts: vec![part],
        })
    }
}

/// Only digits: a parser of numbers would take a sign as well.
fn component(text: &str) -> Result<u8, NameError> {
    match text.parse() {
        Ok(component) if !text.starts_with('+') => Ok(component),
        _ => Err(NameError::Component(text.into())),
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (place, versions) = text
            .split_once('@')
            .ok_or_else(|| NameError::NoVersion(text.into()))?;
        let (product, components) = match place.split_once('/') {
            None => (place, vec![0]),
            Some((product, numbers)) => {
                let components: Result<Vec<u8>, _> = numbers.split(',').map(component).collect();
                (product, components?)
            }
        };
        let versions: Vec<&str> = versions.split(',').collect();
        let mut name = Self {
            product: product.into(),
            parts: Vec::new(),
        };
        for (at, version) in versions.iter().enumerate() {
            let component = components.get(at).copied().unwrap_or(0);
            name.parts
                .extend(Self::new(product, component, version)?.parts);
        }
        if versions.len() != components.len() {
            return Err(NameError::Uneven(
                text.into(),
                Components(components.len()),
                Versions(versions.len()),
            ));
        }
        if components.len() > COMPONENTS_MAX {
            return Err(NameError::TooMany(text.into()));
        }
        for (at, component) in components.iter().enumerate() {
            if components[..at].contains(component) {
                return Err(NameError::Twice(text.into(), *component));
            }
        }
        Ok(name)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [
            NamedPart {
                component: 0,
                version,
            },
        ] = self.parts.as_slice()
        {
            return write!(f, "{}@{version}", self.product);
        }
        f.write_str(&self.product)?;
        for (at, part) in self.parts.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { '/' } else { ',' }, part.component)?;
        }
        for (at, part) in self.parts.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { '@' } else { ',' }, part.version)?;
        }
        Ok(())
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
            (name.parts[0].component, name.to_string().as_str()),
            (2, "pump/2@1.4.0")
        );
    }

    #[test]
    fn several_components_stand_with_their_versions_in_order() {
        let name: ImageName = "lamp/1,0@2.0,1.4".parse().unwrap();
        assert_eq!(name.to_string(), "lamp/1,0@2.0,1.4");
        let parts: Vec<_> = name
            .parts
            .iter()
            .map(|part| (part.component, part.version.as_str()))
            .collect();
        assert_eq!(parts, [(1, "2.0"), (0, "1.4")]);
        for (wrong, words) in [
            ("lamp@1,2", "1 component and 2 versions"),
            ("lamp/1,0@2", "2 components and 1 version:"),
            ("lamp/1,1@1,2", "component 1 twice"),
            ("lamp/0,1,2,3,4@1,2,3,4,5", "more than 4"),
            ("lamp/1,@1,2", "`` is not a component"),
            ("lamp/1,0@1,", "`` is not a version"),
        ] {
            let error = wrong.parse::<ImageName>().unwrap_err().to_string();
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_written_name_reads_back(
            product in "[A-Za-z0-9_-]{1,64}", component: u8, version in "[A-Za-z0-9._+~-]{1,32}",
        ) {
            let name = ImageName::new(&product, component, &version).unwrap();
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn a_written_name_of_several_parts_reads_back(
            product in "[A-Za-z0-9_-]{1,64}", components in proptest::collection::hash_set(any::<u8>(), 1..=4),
            versions in proptest::collection::vec("[A-Za-z0-9._+~-]{1,32}", 4),
        ) {
            let parts = components.into_iter().zip(versions)
                .map(|(component, version)| NamedPart { component, version });
            let name = ImageName { product, parts: parts.collect() };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }
    }
}
