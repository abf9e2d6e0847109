//! Pages and attachments over real connections.

use super::*;

#[tokio::test]
async fn pages_are_read_and_written() {
    let rig = Rig::start().await;
    let path = "pages/=New%252FPage%2521/contents";
    let write = |user, query| {
        let target = format!("{path}?{query}");
        let rig = &rig;
        async move {
            let text = "Content-Type: text/plain\r\n";
            rig.send(user, "POST", &target, text, "Grüße & <b>more</b>")
                .await
        }
    };
    assert_eq!(
        write("2", "abort=exists").await.status,
        403,
        "anonymous may not write"
    );
    let created = write("=crm-bot", "abort=exists&edittime=now").await;
    assert_eq!(created.status, 200, "{}", created.body);
    assert!(
        created.body.contains("<edit status=\"success\"><page "),
        "{}",
        created.body
    );
    assert_eq!(write("=crm-bot", "abort=exists").await.status, 409);
    let read = rig.get("2", path).await;
    assert!(
        read.body.contains("Grüße &amp; &lt;b&gt;more"),
        "{}",
        read.body
    );
    let json = rig.get("2", &format!("{path}?dream.out.format=json")).await;
    assert!(
        json.body
            .contains(r#""body":["Gr\u00fc\u00dfe & <b>more</b>",{"@target":"toc","#),
        "{}",
        json.body
    );
    let found = rig.get("2", "site/query?q=gr%C3%BC%C3%9Fe+MORE").await;
    assert!(found.body.contains("querycount=\"1\""), "{}", found.body);
    assert_eq!(
        rig.get("2", "pages/=Internal").await.status,
        403,
        "restricted"
    );
    let deleted = rig
        .send("=crm-bot", "DELETE", "pages/=New%252FPage%2521", "", "")
        .await;
    assert!(
        deleted.body.contains("<pages.deleted count=\"1\">"),
        "{}",
        deleted.body
    );
    assert_eq!(rig.get("2", path).await.status, 404);
}

#[tokio::test]
async fn tags_are_put_with_an_overridden_post() {
    let rig = Rig::start().await;
    let xml = "Content-Type: application/xml\r\n";
    let tags = "<tags><tag value=\"a &amp; b\"/></tags>";
    let overridden = "pages/=Caf%25C3%25A9/tags?dream.in.verb=PUT";
    let tagged = rig.send("=crm-bot", "POST", overridden, xml, tags).await;
    assert!(
        tagged.body.contains("value=\"a &amp; b\""),
        "{}",
        tagged.body
    );
}

#[tokio::test]
async fn everything_about_a_page_can_be_read() {
    let rig = Rig::start().await;
    for (part, expected) in [
        ("pages", "<pages><page "),
        ("pages/home/subpages?limit=2", "count=\"2\""),
        ("pages/home/tree?format=ids", "<pages>1,2,3,4,"),
        ("pages/home/files,subpages", "<files count=\"1\""),
        ("pages/home/comments", "Very helpful"),
        ("pages/home/ratings", "score=\"1\""),
        ("pages/home/properties", "<properties count=\"0\""),
        ("site/search?q=lamp&limit=1", "count=\"1\" querycount=\"4\""),
        ("site/tags", "<tag value=\"setup\">"),
        (
            "users?usernamefilter=anna",
            "<users count=\"1\" querycount=\"1\" totalcount=\"8\"",
        ),
        ("groups", "<groupname>Support</groupname>"),
        (
            "pages/home/info?dream.in.host=gateway.test",
            "http://gateway.test/@api/deki/pages/1",
        ),
    ] {
        let answered = rig.get("2", part).await;
        assert!(
            answered.body.contains(expected),
            "{part}: {}",
            answered.body
        );
    }
}

#[tokio::test]
async fn attachments_go_up_and_come_down() {
    let rig = Rig::start().await;
    let kind = "Content-Type: text/csv\r\n";
    let up = rig
        .send(
            "=crm-bot",
            "PUT",
            "pages/home/files/=a%2520b.csv",
            kind,
            "0123456789",
        )
        .await;
    assert!(
        up.body.contains("<filename>a b.csv</filename>"),
        "{}",
        up.body
    );
    assert_eq!(rig.journal.take()[0].body_bytes, 10);
    let down = rig.get("2", "files/2/a%20b.csv").await;
    assert_eq!((down.status, down.body.as_str()), (200, "0123456789"));
    assert_eq!(down.header("content-type"), Some("text/csv"));
    let tag = down.header("etag").unwrap();
    let same = rig
        .send(
            "2",
            "GET",
            "files/2",
            &format!("If-None-Match: {tag}\r\n"),
            "",
        )
        .await;
    assert_eq!((same.status, same.body.as_str()), (304, ""));
    let part = rig
        .send("2", "GET", "files/2", "Range: bytes=2-4\r\n", "")
        .await;
    assert_eq!((part.status, part.body.as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let head = rig.send("2", "HEAD", "files/2", "", "").await;
    assert_eq!(
        (head.header("content-length"), head.body.as_str()),
        (Some("10"), "")
    );
    assert!(
        rig.get("2", "files/2/info")
            .await
            .body
            .contains("size=\"10\"")
    );
    assert_eq!(rig.send("2", "DELETE", "files/2", "", "").await.status, 403);
    assert_eq!(rig.send("3", "DELETE", "files/2", "", "").await.status, 200);
    assert_eq!(rig.get("2", "files/2").await.status, 404);
}
