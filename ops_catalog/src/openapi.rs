//! OpenAPI schemas of types whose text form differs from their fields.

/// The schema of a type whose form is a text.
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

/// The schema of a type that has one of two forms.
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
