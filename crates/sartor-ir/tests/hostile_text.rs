//! The parser of the text form never panics, whatever it reads.

use proptest::prelude::*;
use sartor_ir::{parse, print, verify};

const NET: &str = r#"graph "net" {
  opset "" 17
  input %x: f32[N,4,8,8]
  const %w: f32[2,4,1,1] = [1.0, 2.0, -3.5, 4.0, 5e-7, 6.0, 7.0, 8.0]
  const %shape: i64[2] = [0, -1]
  node "conv" %y: f32[N,2,8,8] = Conv(%x, %w, _) {pads=ints[0, 0, 0, 0]}
  node "pool" %p = MaxPool(%y) {kernel_shape=ints[2, 2], strides=ints[2, 2]}
  node "flat" %out = Reshape(%p, %shape)
  node "odd" %"a b" = opaque "com.acme" "Magic"(%y) {body=foreign hex "00ff"} captures %p
  output %out
}
"#;

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn a_graph_with_some_bytes_replaced(changes in prop::collection::vec((0..NET.len(), any::<u8>()), 1..6)) {
        let mut bytes = NET.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let text = String::from_utf8_lossy(&bytes);
        // What is still a graph prints as text that reads back the same, valid or not.
        if let Ok(graph) = parse(&text) {
            let _ = verify(&graph);
            prop_assert_eq!(print(&parse(&print(&graph)).unwrap()), print(&graph));
        }
    }
}
