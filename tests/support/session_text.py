"""Effects of an edge's session in words, one line for each, for scripts and traces."""

from __future__ import annotations

from fl_edge.session import effects
from fl_edge.session.effects import Effect
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t


def shown(effect: Effect) -> str:
    """One line for an effect."""
    match effect:
        case effects.Send(topic=topic, message=message, retain=retain):
            where = t.build("fl", topic)
            return f"send {where}{' (retained)' if retain else ''}: {_content(message)}"
        case effects.SendChunks(sender=sender, chunks=chunks, chunk_size=size):
            listed = ",".join(map(str, chunks))
            return f"send chunks {listed} of {size} bytes session={sender.session} round={sender.round}"
        case effects.Charge(round=number, charges=charges):
            return f"charge round={number}: {', '.join(one.unit for one in charges)}"
        case effects.SaveUpdate(pending=kept):
            return f"keep the update of round {kept.selected.round}"
        case effects.DeleteUpdate():
            return "forget the update that was kept"
        case effects.StageState(reference=reference):
            return f"stage what round {reference.round} has left"
        case effects.PromoteState():
            return "what is staged counts"
        case effects.DropState(staged=staged, current=current, personal=personal):
            texts = {"what is staged": staged, "what counts": current, "its own model": personal}
            return f"drop {', '.join(text for text, asked in texts.items() if asked)}"
        case effects.KeepPersonal(reference=reference):
            return f"keep a model of its own of version {reference.round}"
        case effects.Personalize(job=job, announced=announced, partition=part):
            return f"personalize job={job} version {announced.version} part={part.index}/{part.count}"
        case effects.Load(job=job, task=task, partition=part, run_weights=weights):
            compared = "" if weights is None else f" compared with {weights.digest[:6]}"
            return f"load job={job} {task} part={part.index}/{part.count}{compared}"
        case effects.Fetch(job=job, digest=digest, timeout=patience):
            return f"fetch job={job} {digest[:12]} within {patience:g} s"
        case effects.Train(job=job, selected=selected, partition=part):
            base = "first weights" if selected.base is None else f"from version {selected.base.version}"
            return f"train job={job} round={selected.round} {base} part={part.index}/{part.count}"
        case effects.Evaluate(job=job, split=split, digest=digest):
            return f"evaluate job={job} {digest[:12]} on {split}"
        case effects.MakeRunKeys(run=run):
            return f"make keys of run {run}"
        case effects.DropRunKeys():
            return "delete the keys of the run before"
        case effects.WorkOutAnswer(asked=asked, values=values, body=body):
            verb = "sign" if isinstance(asked, m.Closing) else "open"
            known = "" if body is None else f" own body={body[:6]}"
            return f"{verb} round={asked.round} included={','.join(asked.included)} values={values}{known}"
        case effects.Cancel(job=job):
            return f"cancel job={job}"
        case effects.ServeModel(announced=announced):
            return f"offer version {announced.version}"
        case effects.Disconnect():
            return "disconnect"
        case effects.LogNotice(text=text, level=level):
            return f"say {'' if level == 'info' else level + ': '}{text}"


def _content(message: m.Message) -> str:
    match message:
        case m.ClientPresence(state=state, session=session, reason=reason):
            return f"{state} session={session}" + (f": {reason}" if reason else "")
        case m.Registration() as r if r.run is None:
            return f"register session={r.session}"
        case m.Registration(unable=str(reason)) as r:
            return f"unable session={r.session} run={r.run} incarnation={r.incarnation}: {reason}"
        case m.Registration() as r:
            keys = "" if r.keys is None else f" keys={r.keys[:6]}"
            return f"register session={r.session} run={r.run} incarnation={r.incarnation} examples={r.examples}{keys}"
        case m.Update() as u:
            return f"update session={u.session} incarnation={u.incarnation} round={u.round} digest={u.digest[:6]}"
        case m.Offer() as o:
            cut = f"{o.chunks} chunks of {o.chunk_size}"
            return f"offer session={o.session} incarnation={o.incarnation} round={o.round} digest={o.digest[:6]} {cut}"
        case m.TrainingFailed() as f:
            return f"failed session={f.session} incarnation={f.incarnation} round={f.round}: {f.detail}"
        case m.Agreed() as a:
            return f"agreed session={a.session} incarnation={a.incarnation} round={a.round} closing={a.closing[:6]}"
        case m.Opened() as o:
            lacking = f" unopened={','.join(o.unopened)}" if o.unopened else ""
            what = f"round={o.round} closing={o.closing[:6]}{lacking}"
            return f"opened session={o.session} incarnation={o.incarnation} {what}"
        case m.Declined() as d:
            return f"declined session={d.session} incarnation={d.incarnation} round={d.round}: {d.reason}"
        case m.Delayed() as d:
            return f"delayed session={d.session} incarnation={d.incarnation} round={d.round} {d.awaits}"
        case m.Evaluation() as e:
            found = f"accuracy={e.metrics['accuracy']}" if e.examples else "nothing"
            return f"evaluation incarnation={e.incarnation} version={e.version} {e.split} {found}"
        case _:
            return message.kind
