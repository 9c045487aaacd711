//! Whether a text is well-formed enough for every parser of XML, for tests: tags nest and close, attributes are quoted and
//! not repeated, nothing is left unescaped, and no number is NaN or infinite.

/// What is wrong, if anything is.
pub(in crate::bench::report) fn check(text: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        check_text(&rest[..start])?;
        let end = rest[start..].find('>').ok_or("a tag does not end")? + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let opened = open.pop();
            if opened != Some(name) {
                return Err(format!("</{name}> closes {opened:?}"));
            }
        } else if !tag.starts_with('!') {
            let (tag, closes_itself) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            check_attributes(name, attributes)?;
            let is_void = matches!(name, "meta" | "br");
            if !closes_itself && !is_void {
                open.push(name);
            }
        }
    }
    check_text(rest)?;
    if open.is_empty() { Ok(()) } else { Err(format!("not closed: {open:?}")) }
}

fn check_attributes(name: &str, mut rest: &str) -> Result<(), String> {
    let mut seen = Vec::new();
    while !rest.trim().is_empty() {
        let (attribute, behind) = rest.split_once("=\"").ok_or(format!("<{name} {rest}"))?;
        let (value, behind) = behind.split_once('"').ok_or(format!("<{name}: {attribute} is not quoted"))?;
        check_text(value)?;
        if seen.contains(&attribute.trim()) || value.contains("NaN") || value.contains("inf") {
            return Err(format!("<{name}: {attribute}={value}"));
        }
        seen.push(attribute.trim());
        rest = behind;
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('&') {
        let entity = text[at..].split_once(';').map(|(entity, _)| entity);
        if !entity.is_some_and(|entity| matches!(entity, "&amp" | "&lt" | "&gt" | "&quot" | "&#39")) {
            return Err(format!("a bare & in {text:?}"));
        }
    }
    Ok(())
}

#[test]
fn it_finds_what_is_wrong() {
    assert_eq!(check("<a><b c=\"1\" d=\"&lt;\"/>x &amp; y</a>"), Ok(()));
    for wrong in
        ["<a>", "<a></b>", "</a>", "<a b=1/>", "<a>&</a>", "<a b=\"NaN\"/>", "<a b=\"1\" b=\"2\"/>", "<a"]
    {
        assert!(check(wrong).is_err(), "{wrong}");
    }
}
