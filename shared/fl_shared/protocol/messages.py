"""Every message of the protocol, one model a kind (``docs/protocol.md`` numbers the clauses); defined in `kinds`.

The one import point: ``from fl_shared.protocol import messages as m``.
"""

from fl_shared.protocol.kinds.base import (
    MAX_CHUNK,
    MAX_PACKET,
    PROTOCOL_VERSION,
    ClientId,
    ClientRole,
    Count,
    Digest,
    Fragment,
    Message,
    Metrics,
    Number,
    Reply,
    RunId,
    Scoped,
    Seconds,
    Split,
    State,
    TaskName,
    Text,
    Timestamp,
    Token,
)
from fl_shared.protocol.kinds.evaluation import MAX_CLASSES, Confusion, Evaluation
from fl_shared.protocol.kinds.model import (
    ModelAnnouncement,
    ModelChunk,
    ModelManifest,
    SectionManifest,
)
from fl_shared.protocol.kinds.observation import (
    MAX_HISTORY,
    MAX_REFUSED_NAMED,
    OVER,
    Awaited,
    Edges,
    EdgeState,
    EdgeView,
    History,
    HistoryColumns,
    Missing,
    Phase,
    Status,
)
from fl_shared.protocol.kinds.prediction import ImageRequest, Prediction
from fl_shared.protocol.kinds.round import (
    MAX_CLIENTS_NAMED,
    FoldSettings,
    ModelReference,
    Result,
    Selected,
    TrainingSettings,
)
from fl_shared.protocol.kinds.run import (
    Admitted,
    AggregatorPresence,
    ClientPresence,
    Control,
    Limited,
    LimitReason,
    Partition,
    RefusalReason,
    Refused,
    Registration,
)
from fl_shared.protocol.kinds.update import (
    Accepted,
    Grant,
    Offer,
    OfferedSection,
    Rejected,
    RejectionReason,
    Section,
    TrainingFailed,
    Update,
    UpdateChunk,
    UpdateClaim,
    UpdateMetrics,
)

__all__ = [
    "MAX_CHUNK", "MAX_CLASSES", "MAX_CLIENTS_NAMED", "MAX_HISTORY", "MAX_PACKET", "MAX_REFUSED_NAMED",
    "OVER", "PROTOCOL_VERSION", "Accepted", "Admitted", "AggregatorPresence", "Awaited", "ClientId",
    "ClientPresence", "ClientRole", "Confusion", "Control", "Count", "Digest", "EdgeState", "EdgeView",
    "Edges", "Evaluation", "FoldSettings", "Fragment", "Grant", "History", "HistoryColumns",
    "ImageRequest", "LimitReason", "Limited", "Message", "Metrics", "Missing", "ModelAnnouncement",
    "ModelChunk", "ModelManifest", "ModelReference", "Number", "Offer", "OfferedSection", "Partition",
    "Phase", "Prediction", "RefusalReason", "Refused", "Registration", "Rejected", "RejectionReason",
    "Reply", "Result", "RunId", "Scoped", "Seconds", "Section", "SectionManifest", "Selected", "Split",
    "State", "Status", "TaskName", "Text", "Timestamp", "Token", "TrainingFailed", "TrainingSettings",
    "Update", "UpdateChunk", "UpdateClaim", "UpdateMetrics",
]  # fmt: skip
