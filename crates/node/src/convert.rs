//! JavaScript values to the engine's types and back.
//!
//! The TypeScript of the package has checked every argument before it comes here. What cannot be converted all the
//! same is answered like an unknown socket or channel: by `None`.

use std::borrow::Cow;
use std::ptr;
use std::time::Duration;

use bytes::Bytes;
use neon::prelude::*;
use neon::result::Throw;
use neon::sys::bindings as node_api;
use neon::types::buffer::TypedArray;
use wsbroker_engine::{
    ChannelName, HEADER_ROOM, LargeText, OutboundMessage, RequestId, Response, SocketId, memory,
};

use crate::in_hand::{self, BatchCopy, MessageInHand};
use crate::value::{Data, RawValue, SCRATCH_BYTES};

pub(crate) fn number(cx: &mut FunctionContext, index: usize) -> NeonResult<f64> {
    let value = cx.argument::<JsValue>(index)?;
    match RawValue::of(cx, value).number() {
        Some(number) => Ok(number),
        None => cx.throw_type_error("expected a number"),
    }
}

/// A positive safe integer. `as` saturates and turns NaN into 0, which is no id.
fn id(cx: &mut FunctionContext, index: usize) -> NeonResult<u64> {
    Ok(number(cx, index)? as u64)
}

pub(crate) fn socket_id(cx: &mut FunctionContext, index: usize) -> NeonResult<Option<SocketId>> {
    Ok(SocketId::new(id(cx, index)?))
}

/// A `Float64Array` of ids.
pub(crate) fn socket_ids(cx: &mut FunctionContext, index: usize) -> NeonResult<Vec<SocketId>> {
    let ids = cx.argument::<JsFloat64Array>(index)?;
    let ids = ids.as_slice(cx).iter();
    Ok(ids.filter_map(|id| SocketId::new(*id as u64)).collect())
}

pub(crate) fn request_id(cx: &mut FunctionContext, index: usize) -> NeonResult<Option<RequestId>> {
    Ok(RequestId::new(id(cx, index)?))
}

pub(crate) fn milliseconds(value: f64) -> Duration {
    Duration::from_millis(value as u64)
}

fn with_data<'cx, R>(
    cx: &mut Cx<'cx>,
    value: Handle<'cx, JsValue>,
    use_data: impl FnOnce(Data<'_>) -> R,
) -> NeonResult<R> {
    match RawValue::of(cx, value).with_data(use_data) {
        Some(result) => Ok(result),
        None => cx.throw_type_error("expected a string or a Uint8Array"),
    }
}

/// A string becomes a text message, a `Uint8Array` a binary one; a number is the offset of a message in
/// the batch in hand.
pub(crate) fn with_message<R>(
    cx: &mut FunctionContext,
    index: usize,
    use_message: impl FnOnce(&OutboundMessage<'_>) -> R,
) -> NeonResult<R> {
    let value = cx.argument::<JsValue>(index)?;
    match with_message_of(RawValue::of(cx, value), use_message) {
        Some(result) => Ok(result),
        None => cx.throw_type_error("expected a string, a Uint8Array or an offset"),
    }
}

/// The same for a value of a [direct](crate::direct) call; `None` for what is none of these.
pub(crate) fn with_message_of<R>(
    value: RawValue<'_>,
    use_message: impl FnOnce(&OutboundMessage<'_>) -> R,
) -> Option<R> {
    if let Some(offset) = value.number() {
        return in_hand::with_message_at(offset as usize, |message| match message {
            MessageInHand::Text(text) => use_message(&OutboundMessage::utf8(text)),
            MessageInHand::LargeText(text) => use_message(&OutboundMessage::large_text(text)),
            MessageInHand::Bytes(bytes) => use_message(&OutboundMessage::binary(bytes)),
        });
    }
    value.with_data(|data| match data {
        Data::Text(text) => use_message(&OutboundMessage::utf8(text)),
        Data::LongText(text) => {
            use_message(&OutboundMessage::large_text(&LargeText::behind_room(text)))
        }
        Data::Bytes(bytes) => use_message(&OutboundMessage::binary(bytes)),
    })
}

/// A string stands for its UTF-8.
pub(crate) fn channel_name(
    cx: &mut FunctionContext,
    index: usize,
) -> NeonResult<Option<ChannelName>> {
    let value = cx.argument::<JsValue>(index)?;
    Ok(channel_name_of(RawValue::of(cx, value)))
}

pub(crate) fn channel_name_of(value: RawValue<'_>) -> Option<ChannelName> {
    let name = value.with_data(|data| ChannelName::new(data.as_bytes()).ok());
    name.flatten()
}

/// The values of an array. Neon's own way to ask for its length panics in a thread that is being terminated, where it is
/// refused, and a panic there ends the process.
pub(crate) fn array_values<'cx>(
    cx: &mut Cx<'cx>,
    array: Handle<'cx, JsArray>,
) -> NeonResult<Vec<Handle<'cx, JsValue>>> {
    let mut length = 0;
    // SAFETY: `array` is an array of the environment that `cx` stands for.
    let status =
        unsafe { node_api::get_array_length(cx.to_raw(), array.to_raw(), &raw mut length) };
    if status.is_err() {
        // SAFETY: an array has a length, so this is refused only while an exception is pending.
        return Err(unsafe { Throw::new() });
    }
    (0..length).map(|index| array.get(cx, index)).collect()
}

/// An array of channel names.
pub(crate) fn channel_names(
    cx: &mut FunctionContext,
    index: usize,
) -> NeonResult<Vec<ChannelName>> {
    let array = cx.argument::<JsArray>(index)?;
    let values = array_values(cx, array)?;
    let mut names = Vec::with_capacity(values.len());
    for value in values {
        names.extend(channel_name_of(RawValue::of(cx, value)));
    }
    Ok(names)
}

/// `None` for `undefined`.
pub(crate) fn optional_bytes(cx: &mut FunctionContext, index: usize) -> NeonResult<Option<Bytes>> {
    let value = cx.argument::<JsValue>(index)?;
    if value.is_a::<JsUndefined, _>(cx) {
        return Ok(None);
    }
    with_body(cx, index, |body| body.into_bytes()).map(Some)
}

pub(crate) fn text(cx: &mut FunctionContext, index: usize) -> NeonResult<String> {
    Ok(cx.argument::<JsString>(index)?.value(cx))
}

pub(crate) fn optional_text(cx: &mut FunctionContext, index: usize) -> NeonResult<Option<String>> {
    let value = cx.argument::<JsValue>(index)?;
    Ok(value
        .downcast::<JsString, _>(cx)
        .ok()
        .map(|string| string.value(cx)))
}

/// Three arguments from `index` on: the request's id is another's business, then status, headers and body.
pub(crate) fn response(cx: &mut FunctionContext, index: usize) -> NeonResult<Response> {
    Ok(Response {
        status: number(cx, index)? as u16,
        headers: headers(cx, index + 1)?,
        body: with_body(cx, index + 2, |body| body.into_bytes())?,
    })
}

/// Up to so many bytes it is better to copy than to hand over memory that another thread has to free.
pub(crate) const SHORT: usize = SCRATCH_BYTES;

/// The body of an answer.
pub(crate) enum Body<'a> {
    /// At most [`SHORT`] bytes.
    Short(&'a [u8]),
    Long(Bytes),
}

impl<'a> From<Data<'a>> for Body<'a> {
    fn from(data: Data<'a>) -> Self {
        match data {
            Data::Text(text) => Self::Short(text),
            Data::LongText(text) => Self::Long(memory::share(text).slice(HEADER_ROOM..)),
            Data::Bytes(bytes) if bytes.len() <= SHORT => Self::Short(bytes),
            Data::Bytes(bytes) => Self::Long(Bytes::copy_from_slice(bytes)),
        }
    }
}

impl Body<'_> {
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Short(bytes) => Bytes::copy_from_slice(bytes),
            Self::Long(bytes) => bytes,
        }
    }
}

/// A string or a `Uint8Array`.
pub(crate) fn with_body<R>(
    cx: &mut FunctionContext,
    index: usize,
    use_body: impl FnOnce(Body<'_>) -> R,
) -> NeonResult<R> {
    let value = cx.argument::<JsValue>(index)?;
    with_data(cx, value, |data| use_body(data.into()))
}

pub(crate) fn headers(cx: &mut FunctionContext, index: usize) -> NeonResult<Vec<(Bytes, Bytes)>> {
    let packed = packed_headers(cx, index)?;
    Ok(Response::unpack_headers(&packed.into()))
}

/// One string `name\nvalue\n…`, which costs one crossing for all headers. Header values are latin1 in JavaScript, one
/// character for one byte on the wire.
fn packed_headers(cx: &mut FunctionContext, index: usize) -> NeonResult<Vec<u8>> {
    let packed = cx.argument::<JsValue>(index)?;
    with_data(cx, packed, |packed| latin1(packed.as_bytes()).into_owned())
}

/// What V8 gives as UTF-8.
pub(crate) fn latin1(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let text = str::from_utf8(text).unwrap_or_default();
    text.chars().map(|character| character as u8).collect()
}

pub(crate) fn buffer<'cx>(cx: &mut Cx<'cx>, bytes: &[u8]) -> JsResult<'cx, JsBuffer> {
    // SAFETY: the next line writes every byte before JavaScript can see the buffer.
    let mut buffer = unsafe { JsBuffer::uninitialized(cx, bytes.len())? };
    buffer.as_mut_slice(cx).copy_from_slice(bytes);
    Ok(buffer)
}

/// A buffer for a batch of events, and where it has them.
pub(crate) fn batch_buffer<'cx>(
    cx: &mut Cx<'cx>,
    batch: &[u8],
) -> NeonResult<(Handle<'cx, JsBuffer>, BatchCopy)> {
    // SAFETY: every byte is written below, before JavaScript can see the buffer. `JsBuffer::new` would fill it with zeros
    // first, which is a second pass over every batch.
    let mut buffer = unsafe { JsBuffer::uninitialized(cx, batch.len())? };
    // An engine may keep a small array without an `ArrayBuffer`, and move its bytes when it is asked for one, as the
    // TypeScript does.
    let mut store = ptr::null_mut();
    // SAFETY: `buffer` is alive in `cx`, and what is asked for goes to a local.
    let status = unsafe {
        node_api::get_typedarray_info(
            cx.to_raw(),
            buffer.to_raw(),
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
            &raw mut store,
            ptr::null_mut(),
        )
    };
    if status.is_err() {
        return cx.throw_error("a batch of events has no memory");
    }
    let bytes = buffer.as_mut_slice(cx);
    bytes.copy_from_slice(batch);
    let copy = BatchCopy {
        start: bytes.as_ptr(),
        length: bytes.len(),
    };
    Ok((buffer, copy))
}

/// Ids fit a double exactly.
pub(crate) fn id_array<'cx>(cx: &mut Cx<'cx>, ids: &[SocketId]) -> JsResult<'cx, JsFloat64Array> {
    let ids: Vec<f64> = ids.iter().map(|id| id.get() as f64).collect();
    JsFloat64Array::from_slice(cx, &ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latin1_character_is_one_byte_on_the_wire() {
        assert_eq!(
            *latin1("x-name\nJos\u{e9}\n".as_bytes()),
            *b"x-name\nJos\xe9\n"
        );
        assert_eq!(*latin1(b"x-name\nJose\n"), *b"x-name\nJose\n");
    }
}
