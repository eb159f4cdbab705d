//! Schemas of the types that are written otherwise than they are built, for an OpenAPI document.

/// Describes a type that is written as text.
#[macro_export]
#[doc(hidden)]
macro_rules! text_schema {
    ($type:ty, $doc:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                ObjectBuilder::new().schema_type(Type::String).description(Some($doc)).into()
            }
        }
        impl utoipa::ToSchema for $type {}
    };
}

/// Describes a type that is written in one of two ways.
#[macro_export]
#[doc(hidden)]
macro_rules! either_schema {
    ($type:ty, $one:ty, $other:ty, $doc:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::OneOfBuilder::new()
                    .item($crate::openapi::schema_of::<$one>())
                    .item($crate::openapi::schema_of::<$other>())
                    .description(Some($doc))
                    .into()
            }
        }
        impl utoipa::ToSchema for $type {
            fn schemas(
                schemas: &mut Vec<(
                    String,
                    utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>,
                )>,
            ) {
                <$one as utoipa::ToSchema>::schemas(schemas);
                <$other as utoipa::ToSchema>::schemas(schemas);
            }
        }
    };
}

pub use crate::{either_schema, text_schema};

/// The schema of a part, in place.
#[doc(hidden)]
pub fn schema_of<T: utoipa::PartialSchema>()
-> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
    T::schema()
}
