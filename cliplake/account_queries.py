"""The queries behind the accounts, and what their counts mean where they should be zero.

Each query is one row of counts. ``{topic}`` and ``{seconds}`` are filled in by `cliplake.accounts`.
"""

from __future__ import annotations

from schemas.tables import TABLES

ROWS = "SELECT " + ", ".join(
    f'(SELECT count(*) FROM {table.name}) AS "{table.name}"' for table in TABLES
)

CLIPS = """
SELECT
  (SELECT count(*) FROM enriched_clips) AS enriched,
  (SELECT count(*) FROM enriched_clips WHERE status = 'kept') AS kept,
  (SELECT count(*) FROM enriched_clips WHERE status = 'rejected') AS rejected,
  (SELECT count(*) FROM enriched_clips WHERE status = 'failed') AS failed,
  (SELECT count(*) FROM enriched_clips e LEFT ANTI JOIN clips c ON e.clip_id = c.clip_id)
    AS of_no_clip,
  (SELECT count(*) FROM (SELECT clip_id FROM enriched_clips WHERE status = 'failed') e
     LEFT ANTI JOIN failed_clips f ON e.clip_id = f.clip_id) AS without_failure,
  (SELECT count(*) FROM (SELECT clip_id FROM clip_frames
     GROUP BY clip_id, enrich_seq HAVING count(*) > 1) d) AS doubled_frames,
  (SELECT count(*) FROM (SELECT clip_id, kafka_offset FROM enriched_clips
     WHERE status = 'failed') e JOIN clips c ON e.clip_id = c.clip_id
     WHERE c.kafka_offset > e.kafka_offset) AS failed_to_redo,
  (SELECT count(*) FROM clips) AS clips,
  (SELECT count(*) FROM clips WHERE NOT duration_ok) AS wrong_length
"""

# Replays of which nothing has come yet: rows of their offset or a later one say that it has.
_OPEN_REPLAYS = """
  SELECT r.video_key FROM (SELECT video_key, max(kafka_offset) AS newest FROM videos
    WHERE replay_id IS NOT NULL GROUP BY video_key) r
  LEFT JOIN (SELECT video_key, max(kafka_offset) AS newest FROM (
    SELECT video_key, kafka_offset FROM clips
    UNION ALL SELECT video_key, kafka_offset FROM failed_videos) b GROUP BY video_key) d
  ON r.video_key = d.video_key WHERE d.newest IS NULL OR d.newest < r.newest
"""

VIDEOS = f"""
SELECT
  (SELECT count(*) FROM ({_OPEN_REPLAYS}) o) AS to_redo,
  (SELECT count(*) FROM ({_OPEN_REPLAYS}) o
     LEFT ANTI JOIN clips c ON o.video_key = c.video_key) AS failed_to_redo,
  (SELECT count(*) FROM (SELECT video_key FROM clips GROUP BY video_key) c
     LEFT ANTI JOIN videos v ON c.video_key = v.video_key) AS clips_of_no_video,
  (SELECT count(*) FROM failed_videos f LEFT ANTI JOIN videos v ON f.video_key = v.video_key)
    AS failed_no_video,
  (SELECT count(DISTINCT video_key) FROM clips) AS split,
  (SELECT count(*) FROM failed_videos f
     LEFT ANTI JOIN clips c ON f.video_key = c.video_key) AS failed,
  (SELECT count(DISTINCT video_key) FROM videos) AS videos
"""

SEEN = """
  SELECT kafka_partition, kafka_offset, record_index FROM videos WHERE kafka_topic = '{topic}'
  UNION ALL
  SELECT kafka_partition, kafka_offset, record_index FROM repeats WHERE kafka_topic = '{topic}'
  UNION ALL
  SELECT kafka_partition, kafka_offset, 0 FROM rejected_messages WHERE kafka_topic = '{topic}'
  UNION ALL
  SELECT kafka_partition, kafka_offset, record_index FROM forgotten WHERE kafka_topic = '{topic}'
"""

MESSAGES = f"""
SELECT
  (SELECT count(*) FROM videos WHERE record_index = 0 AND kafka_topic = '{{topic}}'
     AND replay_id IS NULL) AS accepted,
  (SELECT count(*) FROM videos WHERE record_index = 0 AND kafka_topic = '{{topic}}'
     AND replay_id IS NOT NULL) AS replayed,
  (SELECT count(*) FROM repeats WHERE record_index = 0 AND kafka_topic = '{{topic}}') AS repeated,
  (SELECT count(*) FROM rejected_messages WHERE kafka_topic = '{{topic}}') AS rejected,
  (SELECT count(*) FROM forgotten WHERE record_index = 0 AND kafka_topic = '{{topic}}')
    AS forgotten,
  (SELECT count(*) FROM (SELECT 1 FROM ({SEEN}) s
     GROUP BY kafka_partition, kafka_offset, record_index HAVING count(*) > 1) d) AS doubled,
  (SELECT count(*) FROM (SELECT video_key FROM videos WHERE replay_id IS NULL GROUP BY video_key
     HAVING count(*) > 1 AND max(ingested_at) - min(ingested_at)
       < INTERVAL '{{seconds}} seconds') d) AS accepted_twice
"""

PARTITIONS = f"""
SELECT kafka_partition, min(kafka_offset) AS first, max(kafka_offset) AS last
FROM ({SEEN}) s GROUP BY kafka_partition
"""

MESSAGE_PROBLEMS = (
    ("doubled", "{doubled:,} messages have more than one row in videos, repeats and rejected"),
    ("accepted_twice", "{accepted_twice:,} videos were accepted twice within the repeats' memory"),
)
VIDEO_PROBLEMS = (
    ("clips_of_no_video", "clips name {clips_of_no_video:,} videos that are not in videos"),
    ("failed_no_video", "failed_videos names {failed_no_video:,} videos that are not in videos"),
)
CLIP_PROBLEMS = (
    ("of_no_clip", "{of_no_clip:,} rows of enriched_clips are of clips that are not in clips"),
    ("without_failure", "{without_failure:,} failed clips have no row in failed_clips"),
    ("doubled_frames", "{doubled_frames:,} clips have the same frames twice in clip_frames"),
)

_REASON = "CASE WHEN resolved_at IS NULL THEN reason ELSE 'resolved' END"
REASONS = {
    **{
        table: f"SELECT {_REASON} AS reason, count(*) AS n FROM {table} GROUP BY {_REASON}"
        for table in ("rejected_messages", "failed_videos")
    },
    "enriched_clips": (
        "SELECT reject_reason AS reason, count(*) AS n FROM enriched_clips "
        "WHERE reject_reason IS NOT NULL GROUP BY reject_reason"
    ),
}
