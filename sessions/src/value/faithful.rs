//! A serializer that writes through another one what can be read back, and refuses the rest.

use std::cell::Cell;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::MAX_DEPTH;

/// Why a value was refused, if it was. The errors of serde are texts, and others may quote the value.
pub(super) type Reason = Cell<Option<&'static str>>;

const WIDE: &str = "MessagePack has no integers of 128 bits; text or bytes keep them";
const NOTHING: &str = "a Some that holds nothing, None or () for example, is read back as None";
const DEEP: &str = "it has more than 64 levels";

/// The serializer, at some place in a value.
pub(super) struct Faithful<'r, S> {
    inner: S,
    place: Place<'r>,
}

#[derive(Clone, Copy)]
struct Place<'r> {
    /// How many levels are above.
    depth: usize,
    /// Whether what comes is what a `Some` holds.
    in_some: bool,
    reason: &'r Reason,
}

impl<'r, S> Faithful<'r, S> {
    pub(super) fn new(inner: S, reason: &'r Reason) -> Self {
        let place = Place {
            depth: 0,
            in_some: false,
            reason,
        };
        Self { inner, place }
    }
}

impl Place<'_> {
    fn refuse<T, E: Error>(self, reason: &'static str) -> Result<T, E> {
        self.reason.set(Some(reason));
        Err(E::custom(reason))
    }

    /// One level down, where no `Some` is directly above.
    fn below<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return self.refuse(DEEP);
        }
        Ok(Self {
            depth: self.depth + 1,
            in_some: false,
            ..self
        })
    }

    /// One level down, where nothing is written for the level itself.
    fn through<E: Error>(self, in_some: bool) -> Result<Self, E> {
        let below = self.below()?;
        Ok(Self { in_some, ..below })
    }
}

/// A value within a value.
struct Within<'a, 'r, T: ?Sized> {
    value: &'a T,
    place: Place<'r>,
}

impl<T: Serialize + ?Sized> Serialize for Within<'_, '_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Faithful {
            inner,
            place: self.place,
        })
    }
}

macro_rules! as_it_is {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        })*
    };
}

impl<'r, S: Serializer> Serializer for Faithful<'r, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<'r, S::SerializeSeq>;
    type SerializeTuple = Parts<'r, S::SerializeTuple>;
    type SerializeTupleStruct = Parts<'r, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<'r, S::SerializeTupleVariant>;
    type SerializeMap = Parts<'r, S::SerializeMap>;
    type SerializeStruct = Parts<'r, S::SerializeStruct>;
    type SerializeStructVariant = Parts<'r, S::SerializeStructVariant>;

    as_it_is! {
        serialize_bool(bool)
        serialize_i8(i8)
        serialize_i16(i16)
        serialize_i32(i32)
        serialize_i64(i64)
        serialize_u8(u8)
        serialize_u16(u16)
        serialize_u32(u32)
        serialize_u64(u64)
        serialize_f32(f32)
        serialize_f64(f64)
        serialize_char(char)
        serialize_str(&str)
        serialize_bytes(&[u8])
    }

    fn serialize_i128(self, _: i128) -> Result<S::Ok, S::Error> {
        self.place.refuse(WIDE)
    }

    fn serialize_u128(self, _: u128) -> Result<S::Ok, S::Error> {
        self.place.refuse(WIDE)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        if self.place.in_some {
            return self.place.refuse(NOTHING);
        }
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let place = self.place.through(true)?;
        self.inner.serialize_some(&Within { value, place })
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        if self.place.in_some {
            return self.place.refuse(NOTHING);
        }
        self.inner.serialize_unit()
    }

    /// As nothing, which serde reads as a unit struct wherever it stands. The empty sequence that it
    /// would be else is not one to an untagged enum.
    fn serialize_unit_struct(self, _: &'static str) -> Result<S::Ok, S::Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let place = self.place.through(self.place.in_some)?;
        let value = Within { value, place };
        self.inner.serialize_newtype_struct(name, &value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let place = self.place.below()?;
        let value = Within { value, place };
        self.inner
            .serialize_newtype_variant(name, index, variant, &value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let place = self.place.below()?;
        Parts::new(self.inner.serialize_seq(len), place)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let place = self.place.below()?;
        Parts::new(self.inner.serialize_tuple(len), place)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        let place = self.place.below()?;
        Parts::new(self.inner.serialize_tuple_struct(name, len), place)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        // The variant and its content are two levels in the bytes.
        let place = self.place.below::<S::Error>()?.below()?;
        let parts = self
            .inner
            .serialize_tuple_variant(name, index, variant, len);
        Parts::new(parts, place)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let place = self.place.below()?;
        Parts::new(self.inner.serialize_map(len), place)
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let place = self.place.below()?;
        Parts::new(self.inner.serialize_struct(name, len), place)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let place = self.place.below::<S::Error>()?.below()?;
        let parts = self
            .inner
            .serialize_struct_variant(name, index, variant, len);
        Parts::new(parts, place)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The parts of a value that are written one after the other.
pub(super) struct Parts<'r, P> {
    inner: P,
    place: Place<'r>,
}

impl<'r, P> Parts<'r, P> {
    fn new<E>(inner: Result<P, E>, place: Place<'r>) -> Result<Self, E> {
        inner.map(|inner| Self { inner, place })
    }

    fn within<'a, T: ?Sized>(&self, value: &'a T) -> Within<'a, 'r, T> {
        let place = self.place;
        Within { value, place }
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident)*) => {
        $(impl<P: $trait> $trait for Parts<'_, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
                let value = self.within(value);
                self.inner.$method(&value)
            }

            fn end(self) -> Result<P::Ok, P::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! fields {
    ($($trait:ident)*) => {
        $(impl<P: $trait> $trait for Parts<'_, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), P::Error> {
                let value = self.within(value);
                self.inner.serialize_field(key, &value)
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), P::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<P::Ok, P::Error> {
                self.inner.end()
            }
        })*
    };
}

fields! {
    SerializeStruct
    SerializeStructVariant
}

impl<P: SerializeMap> SerializeMap for Parts<'_, P> {
    type Ok = P::Ok;
    type Error = P::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), P::Error> {
        let key = self.within(key);
        self.inner.serialize_key(&key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        let value = self.within(value);
        self.inner.serialize_value(&value)
    }

    fn end(self) -> Result<P::Ok, P::Error> {
        self.inner.end()
    }
}
