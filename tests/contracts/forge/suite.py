"""What every forge keeps to (bot.ports.Forge). Subclass it as Test…, with a fixture `rig`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.errors import BundleRefused, ForgeError, PushRefused, RepositoryUnknown
from bot.models import Lent, PullRequest, Repository, Work
from tests.contracts.forge.rig import ForgeRig
from tests.contracts.forge.workshop import Workshop

BRANCH = "sandpiper/7-fix-it-0123abcd"
NOTHING = "0" * 40
MARKER = "sandpiper:session=0123abcd"
WORKFLOW = ".github/workflows/ci.yml"


async def at_work(rig: ForgeRig, name: str = "box") -> tuple[Repository, Workshop]:
    """A sandbox with the repository in it, on its own branch."""
    repository = await rig.forge.repository(rig.name)
    workshop = await Workshop.made(rig.scratch / name)
    await workshop.bring_in(rig.forge, repository)
    await workshop.start(BRANCH)
    return repository, workshop


async def publish(rig: ForgeRig, repository: Repository, workshop: Workshop, expected: str = "") -> str:
    work = await workshop.work(BRANCH)
    bundle = await workshop.bundle(work.base_sha, *([expected] if expected else []))
    await rig.forge.publish_branch(repository, bundle, work, expected)
    return work.head


async def opened(
    rig: ForgeRig, repository: Repository, workshop: Workshop, body: str = "Done.", update: str = "More."
) -> PullRequest:
    work = await workshop.work(BRANCH)
    return await rig.forge.pull_request(repository, work, "Fix it", body, MARKER, update)


def showing(lent: Lent) -> tuple[str, str]:
    return "-c", f"http.{lent.url}.extraHeader=Authorization: Bearer {lent.grant}"


class ForgeContract:
    # Repositories and roles

    async def test_a_repository_is_found_by_name_and_by_id(self, rig: ForgeRig) -> None:
        by_name = await rig.forge.repository(rig.name)
        assert (by_name.full_name, by_name.default_branch) == (rig.name, "main")
        assert await rig.forge.repository(str(by_name.id)) == by_name

    @pytest.mark.parametrize("name", ["acme/nothing", "999999999", "no repository", "../..", "a/b/c", ""])
    async def test_an_unknown_repository_is_named_with_a_mend(self, rig: ForgeRig, name: str) -> None:
        with pytest.raises(RepositoryUnknown) as unknown:
            await rig.forge.repository(name)
        assert name in unknown.value.what
        assert unknown.value.mend
        assert not unknown.value.retryable

    async def test_people_have_roles(self, rig: ForgeRig) -> None:
        repository = await rig.forge.repository(rig.name)
        assert await rig.forge.permission(repository, rig.writer) in ("admin", "maintain", "write")
        assert await rig.forge.permission(repository, rig.reader) == "read"
        for nobody in (rig.stranger, "ada", "", "1/../collaborators"):
            assert await rig.forge.permission(repository, nobody) in ("none", "read")

    # Code in

    async def test_a_bundle_brings_all_branches(self, rig: ForgeRig) -> None:
        side = await rig.push("side", {"side.txt": "x"})
        repository = await rig.forge.repository(rig.name)
        workshop = await Workshop.made(rig.scratch / "box")
        await workshop.bring_in(rig.forge, repository)
        assert await workshop.git("rev-parse", "origin/side") == side
        assert await workshop.git("rev-parse", "origin/main") == (await rig.heads())["main"]

    async def test_who_has_everything_gets_no_bundle(self, rig: ForgeRig) -> None:
        repository = await rig.forge.repository(rig.name)
        heads = await rig.heads()
        target = rig.scratch / "none.bundle"
        code = await rig.forge.bundle(repository, [*heads.values(), NOTHING, "nonsense"], target)
        assert code.empty
        assert dict(code.refs) == dict(heads)
        assert code.base == "main"
        assert not target.exists()

    async def test_a_second_bundle_brings_only_what_is_new(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        before = await workshop.git("rev-parse", "origin/main")
        after = await rig.push("main", {"new.txt": "x"})
        target = rig.scratch / "more.bundle"
        code = await rig.forge.bundle(repository, [before], target)
        assert code.refs["main"] == after
        listed = await workshop.git("bundle", "verify", str(target))
        assert before in listed

    async def test_a_branch_that_is_gone_is_gone_here_too(self, rig: ForgeRig) -> None:
        side = await rig.push("side", {"side.txt": "x"})
        repository, _ = await at_work(rig)
        assert await rig.forge.branch_head(repository, "side") == side
        await rig.delete("side")
        assert await rig.forge.branch_head(repository, "side") == ""
        code = await rig.forge.bundle(repository, [], rig.scratch / "all.bundle")
        assert set(code.refs) == {"main"}

    # Code on demand

    async def test_a_turn_reads_a_large_repository_by_itself(self, rig: ForgeRig) -> None:
        side = await rig.push("side", {"side.txt": "x"})
        rig.lend(7)
        target = rig.scratch / "none.bundle"
        code = await rig.forge.bundle(await rig.forge.repository(rig.name), [], target, turn=7)
        assert code.lent and code.empty and not target.exists()
        assert dict(code.refs) == dict(await rig.heads())
        assert code.lent.grant not in f"{code} {code.lent.url}"
        workshop = await Workshop.made(rig.scratch / "box")
        show = showing(code.lent)
        await workshop.git(*show, "clone", "--quiet", "--bare", "--filter=blob:none", code.lent.url, "clone")
        listed = await workshop.git("-C", "clone", "rev-list", "--objects", "--missing=print", "side")
        assert side in listed and "\n?" in listed
        assert await workshop.git(*show, "-C", "clone", "cat-file", "blob", "side:side.txt") == "x"

    async def test_what_a_turn_reads_from_is_its_own_and_for_reading(self, rig: ForgeRig) -> None:
        rig.lend(7)
        rig.lend(8)
        repository, target = await rig.forge.repository(rig.name), rig.scratch / "none.bundle"
        seven, eight = [await rig.forge.bundle(repository, [], target, turn=turn) for turn in (7, 8)]
        assert seven.lent and eight.lent and seven.lent.grant != eight.lent.grant
        before = await rig.heads()
        workshop = await Workshop.made(rig.scratch / "box")
        first, second, url = showing(seven.lent), showing(eight.lent), seven.lent.url
        await workshop.git(*first, "clone", "--quiet", "--bare", url, "clone")
        with pytest.raises(AssertionError, match="403"):
            await workshop.git(*first, "-C", "clone", "push", "origin", "main:evil")
        rig.end(7)
        for refused in (first, ()):
            with pytest.raises(AssertionError, match="403"):
                await workshop.git(*refused, "ls-remote", url)
        assert await workshop.git(*second, "ls-remote", url)
        assert await rig.heads() == before

    async def test_where_git_cannot_read_it_a_large_repository_comes_as_a_bundle(self, rig: ForgeRig) -> None:
        rig.lend(7)
        target = rig.scratch / "all.bundle"
        code = await rig.forge.bundle(await rig.forge.repository(rig.name), [], target)
        assert not code.lent and not code.empty and target.exists()

    # Commits out

    async def test_commits_become_a_branch(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        head = await publish(rig, repository, workshop)
        assert (await rig.heads())[BRANCH] == head
        assert await rig.forge.branch_head(repository, BRANCH) == head

    async def test_publishing_again_is_done_already(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        await publish(rig, repository, workshop)
        rig.decline_next_push("no push is needed")
        head = await publish(rig, repository, workshop)
        assert (await rig.heads())[BRANCH] == head

    async def test_more_commits_follow_the_first(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        first = await publish(rig, repository, workshop)
        await workshop.commit({"a.txt": "2"})
        second = await publish(rig, repository, workshop, expected=first)
        assert (await rig.heads())[BRANCH] == second

    async def test_rewritten_commits_replace_those_that_we_know_of(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        first = await publish(rig, repository, workshop)
        await workshop.start(BRANCH)
        await workshop.commit({"a.txt": "another way"})
        work = await workshop.work(BRANCH)
        await rig.forge.publish_branch(repository, await workshop.bundle(work.base_sha), work, first)
        assert (await rig.heads())[BRANCH] == work.head

    @pytest.mark.parametrize("expected", ["", "the base"])
    async def test_what_others_pushed_is_never_overwritten(self, rig: ForgeRig, expected: str) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        work = await workshop.work(BRANCH)
        bundle = await workshop.bundle(work.base_sha)
        theirs = await rig.push(BRANCH, {"theirs.txt": "x"})
        with pytest.raises(PushRefused, match="changed") as refused:
            await rig.forge.publish_branch(repository, bundle, work, expected and work.base_sha)
        assert refused.value.mend
        assert (await rig.heads())[BRANCH] == theirs

    async def test_a_rule_of_the_forge_is_told_in_its_own_words(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        rig.decline_next_push("GH013: Repository rule violations found: commits must be signed")
        with pytest.raises(PushRefused, match="commits must be signed") as refused:
            await publish(rig, repository, workshop)
        assert refused.value.mend
        assert BRANCH not in await rig.heads()

    # What does not get out

    async def refused(self, rig: ForgeRig, repository: Repository, workshop: Workshop, why: str) -> None:
        with pytest.raises(BundleRefused, match=why) as refused:
            await publish(rig, repository, workshop)
        assert refused.value.mend
        assert BRANCH not in await rig.heads()

    async def test_workflows_are_never_changed(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({WORKFLOW: "on: push"})
        await self.refused(rig, repository, workshop, WORKFLOW.rpartition("/")[0])

    async def test_not_even_for_one_commit(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({WORKFLOW: "on: push"})
        await workshop.commit({WORKFLOW: None})
        await self.refused(rig, repository, workshop, "workflows")

    async def test_nor_hidden_in_a_merge(self, rig: ForgeRig) -> None:
        await rig.push("main", {WORKFLOW: "on: push"})
        repository, workshop = await at_work(rig)
        await workshop.start(BRANCH, "origin/main~1")
        await workshop.commit({"a.txt": "1"})
        await workshop.git("merge", "--quiet", "--no-commit", "origin/main")
        await workshop.commit({WORKFLOW: "on: pull_request_target"})
        await self.refused(rig, repository, workshop, "workflows")

    async def test_merging_what_others_did_to_workflows_is_fine(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        await rig.push("main", {WORKFLOW: "on: push"})
        await workshop.bring_in(rig.forge, repository)
        await workshop.git("merge", "--quiet", "origin/main")
        assert (await rig.heads())["main"]
        head = await publish(rig, repository, workshop)
        assert (await rig.heads())[BRANCH] == head

    async def test_a_damaged_bundle_is_refused(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1" * 5000})
        work = await workshop.work(BRANCH)
        bundle = await workshop.bundle(work.base_sha)
        whole = bundle.read_bytes()
        for damaged in (b"", b"not a bundle", whole[:-30], whole[:-30] + b"x" * 30):
            bundle.write_bytes(damaged)
            with pytest.raises(BundleRefused):
                await rig.forge.publish_branch(repository, bundle, work, "")
        assert BRANCH not in await rig.heads()

    async def test_a_bundle_without_the_commit_is_refused(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        work = await workshop.work(BRANCH)
        bundle = await workshop.bundle(work.base_sha)
        with pytest.raises(BundleRefused, match="does not hold"):
            await rig.forge.publish_branch(repository, bundle, replace(work, head="1" * 40), "")

    async def test_commits_without_the_base_are_refused(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        main = await workshop.git("rev-parse", "origin/main")
        await workshop.git("checkout", "--quiet", "--orphan", "alone")
        await workshop.commit({"a.txt": "1"})
        head = await workshop.git("rev-parse", "HEAD")
        work = Work(BRANCH, "main", main, head, 1)
        with pytest.raises(BundleRefused, match="do not rest on"):
            await rig.forge.publish_branch(repository, await workshop.bundle(), work, "")

    async def test_commits_on_a_base_that_the_forge_never_had_are_refused(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        secret = await workshop.commit({"a.txt": "1"})
        await workshop.commit({"a.txt": "2"})
        work = replace(await workshop.work(BRANCH), base_sha=secret)
        with pytest.raises(BundleRefused, match="do not rest on"):
            await rig.forge.publish_branch(repository, await workshop.bundle(secret), work, "")

    async def test_invalid_objects_are_refused(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        blob = await workshop.git("hash-object", "-w", "--stdin", stdin=b"x")
        tree = await workshop.git(
            *("hash-object", "-w", "-t", "tree", "--literally", "--stdin"),
            stdin=b"100644 .git\x00" + bytes.fromhex(blob),
        )
        parent = await workshop.git("rev-parse", "HEAD")
        commit = await workshop.git("commit-tree", tree, "-p", parent, "-m", "trap")
        await workshop.git("update-ref", f"refs/heads/{BRANCH}", commit)
        await self.refused(rig, repository, workshop, "invalid objects")

    async def test_a_huge_bundle_is_refused_unread(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        work = await workshop.work(BRANCH)
        huge = rig.scratch / "huge.bundle"
        with huge.open("wb") as file:
            file.truncate(2**31)
        with pytest.raises(BundleRefused, match="MB"):
            await rig.forge.publish_branch(repository, huge, work, "")

    @pytest.mark.parametrize("branch", ["main", "a..b", "-f", "x y", "", "a.lock", "../main", "x\ny"])
    async def test_only_branches_of_our_own_are_pushed(self, rig: ForgeRig, branch: str) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        work = replace(await workshop.work(BRANCH), branch=branch)
        before = await rig.heads()
        with pytest.raises(BundleRefused):
            await rig.forge.publish_branch(repository, await workshop.bundle(work.base_sha), work, "")
        assert await rig.heads() == before

    # Pull requests

    async def test_a_pull_request_is_opened_with_its_numbers(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1\n2\n"})
        await publish(rig, repository, workshop)
        pull = await opened(rig, repository, workshop)
        assert (pull.head, pull.base, pull.title, pull.repository) == (BRANCH, "main", "Fix it", rig.name)
        assert (pull.commits, pull.files, pull.added, pull.removed) == (1, 1, 2, 0)
        assert pull.created
        assert pull.url.startswith("http")
        title, body = (await rig.pull_requests())[pull.number]
        assert title == "Fix it"
        assert body.startswith("Done.")
        assert MARKER in body

    async def test_what_is_new_stands_below_what_people_made_of_the_description(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        head = await publish(rig, repository, workshop)
        before = await opened(rig, repository, workshop)
        _, body = (await rig.pull_requests())[before.number]
        await rig.edit_pull_request(before.number, "A better title", f"Mind the gap.\n\n{body}")
        for name in ("b.txt", "c.txt"):
            await workshop.commit({name: "1"})
            head = await publish(rig, repository, workshop, expected=head)
            after = await opened(rig, repository, workshop, "Other words.", f"Added {name}.")
        assert (after.number, after.created, after.commits) == (before.number, False, 3)
        title, body = (await rig.pull_requests())[after.number]
        assert title == "A better title"
        assert body.startswith("Mind the gap.\n\nDone.")
        assert body.index("Done.") < body.index("Added b.txt.") < body.index("Added c.txt.")
        assert "Other words." not in body
        assert body.count(MARKER) == 1

    async def test_what_is_new_is_told_once(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        first = await publish(rig, repository, workshop)
        pull = await opened(rig, repository, workshop)
        await opened(rig, repository, workshop)
        assert "More." not in (await rig.pull_requests())[pull.number][1]
        await workshop.commit({"b.txt": "1"})
        await publish(rig, repository, workshop, expected=first)
        for _ in range(2):
            await opened(rig, repository, workshop)
        assert (await rig.pull_requests())[pull.number][1].count("More.") == 1

    async def test_a_description_without_room_is_left_as_it_is(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        first = await publish(rig, repository, workshop)
        pull = await opened(rig, repository, workshop, "long " * 20_000)
        before = await rig.pull_requests()
        await workshop.commit({"b.txt": "1"})
        await publish(rig, repository, workshop, expected=first)
        assert (await opened(rig, repository, workshop)).number == pull.number
        assert await rig.pull_requests() == before

    async def test_a_lost_answer_opens_no_second_one(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        await publish(rig, repository, workshop)
        rig.lose_next_answer()
        with pytest.raises(ForgeError) as lost:
            await opened(rig, repository, workshop)
        assert lost.value.retryable
        pull = await opened(rig, repository, workshop)
        assert list(await rig.pull_requests()) == [pull.number]

    async def test_somebodys_own_pull_request_keeps_its_words(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        await publish(rig, repository, workshop)
        number = await rig.add_pull_request(BRANCH, "Mine", "My own words")
        pull = await opened(rig, repository, workshop)
        assert (pull.number, pull.created) == (number, False)
        assert (await rig.pull_requests())[number] == ("Mine", "My own words")

    async def test_after_a_closed_one_there_is_a_new_one(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        await publish(rig, repository, workshop)
        first = await opened(rig, repository, workshop)
        await rig.close_pull_request(first.number)
        second = await opened(rig, repository, workshop)
        assert second.created
        assert second.number != first.number

    async def test_what_became_of_a_pull_request_is_known(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        await workshop.commit({"a.txt": "1"})
        first = await publish(rig, repository, workshop)
        closed = (await opened(rig, repository, workshop)).number
        assert await rig.forge.pull_request_state(repository, closed) == "open"
        await rig.close_pull_request(closed)
        assert await rig.forge.pull_request_state(repository, closed) == "closed"
        await workshop.commit({"b.txt": "1"})
        await publish(rig, repository, workshop, expected=first)
        merged = (await opened(rig, repository, workshop)).number
        await rig.merge_pull_request(merged)
        assert await rig.forge.pull_request_state(repository, merged) == "merged"

    async def test_a_branch_without_anything_new_has_no_pull_request(self, rig: ForgeRig) -> None:
        repository, workshop = await at_work(rig)
        main = await workshop.git("rev-parse", "origin/main")
        await rig.push(BRANCH, {"x.txt": "1"})
        await rig.push("other", {"y.txt": "1"})
        work = replace(await workshop.work(BRANCH), branch="main", base="other", head=main)
        with pytest.raises(ForgeError, match="nothing that other does not have") as nothing:
            await rig.forge.pull_request(repository, work, "Empty", "", MARKER)
        assert not nothing.value.retryable
