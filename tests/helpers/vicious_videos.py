"""Small videos of every awkward kind, for tests that ask whether frames by number are those of a full decode.

`VICIOUS[name](path)` writes one; the name's suffix is the file's.
"""

from functools import partial
from pathlib import Path

from crafted_h26x import H26X
from crafted_streams import STREAMS
from damaged_videos import DAMAGED
from encoded_videos import ENCODED, Builder, base, encode
from remuxed_videos import (
    Change,
    Sample,
    doubled,
    flagged,
    remux,
    repeated,
    restamped,
    shuffled_data,
    swapped,
    without,
)
from shaped_videos import SHAPED

EVERY = flagged(lambda n, key: True)
NONE = flagged(lambda n, key: False)
LATE = flagged(lambda n, key: n % 10 == 3)


def stamps_in_decode_order(n: int, sample: Sample) -> tuple[int, int]:
    """Every packet later than the one before, though B frames are shown otherwise: a careless AVI to MKV."""
    return n * sample.duration, n * sample.duration


def hours_later(n: int, sample: Sample) -> tuple[int, int]:
    ticks = round(5 * 3600 / sample.tick)
    return sample.pts + ticks, sample.dts + ticks


def half_an_hour_between(n: int, sample: Sample) -> tuple[int, int]:
    ticks = round(1800 / sample.tick) * (n >= 20)
    return sample.pts + ticks, sample.dts + ticks


def back_to_the_start(n: int, sample: Sample) -> tuple[int, int]:
    """The second half has the first half's times of presentation again."""
    return sample.pts + (40 if n < 20 else 20) * sample.duration, n + 1


def in_pairs(n: int, sample: Sample) -> tuple[int, int]:
    """Two neighbours in presentation have one time."""
    return (sample.pts // (2 * sample.duration) * 2 + 9) * sample.duration, n + 1


def before_zero(n: int, sample: Sample) -> tuple[int, int]:
    return sample.pts - 13 * sample.duration, sample.dts - 13 * sample.duration


def irregular(n: int, sample: Sample) -> tuple[int, int]:
    """Spacing grows with time, and order stays."""
    return sample.pts + sample.pts * sample.pts // (8 * sample.duration) + 9 * sample.duration, n + 1


def reversed_stamps(n: int, sample: Sample) -> tuple[int, int]:
    return 60 * sample.duration - sample.pts, n + 1


REMUXED: dict[str, tuple[str, Change] | tuple[str, Change, dict[str, str]]] = {
    "all_keys.mkv": ("x264_b3.mp4", EVERY),
    "all_keys.mp4": ("x264_b3.mp4", EVERY),
    "all_keys.nut": ("x264_b3.mp4", EVERY),
    "all_keys.flv": ("x264_b3.mp4", EVERY),
    "all_keys_hevc.mkv": ("x265_open_gop.mp4", EVERY),
    "all_keys_hevc.mp4": ("x265_open_gop.mp4", EVERY),
    "all_keys_vp9.webm": ("vp9.webm", EVERY),
    "all_keys_av1.mkv": ("av1.mp4", EVERY),
    "all_keys_mpeg4.avi": ("mpeg4_b.avi", EVERY),
    "all_keys_ffv1.mkv": ("ffv1_with_memory.mkv", EVERY),
    "no_keys.mkv": ("x264_b3.mp4", NONE),
    "no_keys.mp4": ("x264_b3.mp4", NONE),
    "no_keys.avi": ("mpeg4_b.avi", NONE),
    "no_keys_mjpeg.mkv": ("mjpeg.mkv", NONE),
    "late_keys.mkv": ("x264_b3.mp4", LATE),
    "late_keys.mp4": ("x264_b3.mp4", LATE),
    "late_keys_mpeg4.avi": ("mpeg4_b.avi", LATE),
    "late_keys_vp8.webm": ("vp8.webm", LATE),
    "late_keys_hevc.mp4": ("x265_closed.mp4", LATE),
    "cut_front.mkv": ("x264_b3.mp4", without(0, 1, 2)),
    "cut_front.mp4": ("x264_b3.mp4", without(0, 1, 2)),
    "cut_front.ts": ("x264_b3.ts", without(0, 1, 2)),
    "cut_front.avi": ("x264_b3.avi", without(0, 1, 2)),
    "cut_front.h264": ("x264_b3.h264", without(0, 1, 2)),
    "cut_front_no_b.mkv": ("x264_no_b.mp4", without(0, 1, 2)),
    "cut_front_open_gop.mkv": ("x264_open_gop.mp4", without(*range(10))),
    "cut_front_open_gop.ts": ("x264_open_gop.ts", without(*range(10))),
    "cut_front_intra_refresh.ts": ("x264_intra_refresh.ts", without(*range(7))),
    "cut_front_hevc.mkv": ("x265_open_gop.mp4", without(0, 1, 2)),
    "cut_front_hevc_to_its_key.mkv": ("x265_open_gop.mp4", without(*range(10))),
    "cut_front_hevc_to_its_key.mp4": ("x265_open_gop.mp4", without(*range(10))),
    "cut_front_hevc_to_its_key.ts": ("x265_open_gop.ts", without(*range(10))),
    "cut_front_mpeg2.mpg": ("mpeg2.mpg", without(0, 1, 2)),
    "cut_front_mpeg2.ts": ("mpeg2.ts", without(*range(6))),
    "cut_front_mpeg4.avi": ("mpeg4_b.avi", without(0, 1, 2)),
    "cut_front_mpeg4.mkv": ("mpeg4_b.mkv", without(0, 1, 2)),
    "cut_front_vp8.webm": ("vp8.webm", without(0, 1, 2)),
    "cut_front_vp9.webm": ("vp9.webm", without(0, 1, 2)),
    "cut_front_av1.mkv": ("av1.mkv", without(0, 1, 2)),
    "cut_front_ffv1.mkv": ("ffv1_with_memory.mkv", without(0, 1, 2)),
    "lost_reference.mkv": ("x264_b3.mp4", without(11)),
    "lost_key.mkv": ("x264_b3.mp4", without(20)),
    "lost_b.mkv": ("x264_b3.mp4", without(13)),
    "lost_reference.ts": ("x264_b3.ts", without(11, 12)),
    "lost_reference.avi": ("x264_b3.avi", without(11, 12)),
    "lost_reference_hevc.mkv": ("x265_closed.mp4", without(11)),
    "lost_key_hevc.mkv": ("x265_open_gop.mp4", without(*(n for n in range(15, 25)))),
    "lost_reference_mpeg4.avi": ("mpeg4_b.avi", without(11)),
    "lost_reference_vp8.webm": ("vp8.webm", without(11)),
    "lost_reference_vp9.webm": ("vp9.webm", without(11)),
    "doubled_reference.mkv": ("x264_b3.mp4", doubled(11)),
    "doubled_key.mkv": ("x264_b3.mp4", doubled(20)),
    "doubled_b.mkv": ("x264_b3.mp4", doubled(13)),
    "repeated_reference.mkv": ("x264_b3.mp4", repeated(11)),
    "repeated_b.mkv": ("x264_b3.mp4", repeated(13)),
    "repeated_key.mp4": ("x264_b3.mp4", repeated(20)),
    "repeated_b.ts": ("x264_b3.ts", repeated(13)),
    "repeated_reference.avi": ("x264_b3.avi", repeated(11)),
    "repeated_vp9.webm": ("vp9.webm", repeated(11)),
    "repeated_hevc.mkv": ("x265_closed.mp4", repeated(11)),
    "doubled_reference_hevc.mkv": ("x265_closed.mp4", doubled(11)),
    "doubled_b_hevc.mkv": ("x265_closed.mp4", doubled(13)),
    "repeated_mpeg4.avi": ("mpeg4_b.avi", repeated(11)),
    "doubled_vp9.webm": ("vp9.webm", doubled(11)),
    "swapped.mkv": ("x264_b3.mp4", swapped(12)),
    "swapped.ts": ("x264_b3.ts", swapped(12)),
    "swapped_at_the_key.mkv": ("x264_b3.mp4", swapped(19)),
    "swapped_data_mpeg4.mkv": ("mpeg4_b.mp4", shuffled_data(12)),
    "swapped_data.mp4": ("x264_b3.mp4", shuffled_data(12)),
    "swapped_data.mkv": ("x264_no_b.mp4", shuffled_data(12)),
    "swapped_data_b.mkv": ("x264_b3.mp4", shuffled_data(13)),
    "stamps_in_decode_order.mkv": ("x264_b3.mp4", restamped(stamps_in_decode_order)),
    "stamps_in_decode_order.mp4": ("x264_b3.mp4", restamped(stamps_in_decode_order)),
    "stamps_in_decode_order_hevc.mkv": ("x265_open_gop.mp4", restamped(stamps_in_decode_order)),
    "stamps_in_decode_order_mpeg4.mkv": ("mpeg4_b.mkv", restamped(stamps_in_decode_order)),
    "hours_later.mp4": ("x264_b3.mp4", restamped(hours_later)),
    "hours_later.mkv": ("x264_b3.mp4", restamped(hours_later)),
    "hours_later.ts": ("x264_b3.ts", restamped(hours_later)),
    "before_zero.mkv": ("x264_b3.mp4", restamped(before_zero), {"muxing": "avoid_negative_ts=disabled"}),
    "before_zero.mp4": ("x264_b3.mp4", restamped(before_zero), {"muxing": "avoid_negative_ts=disabled"}),
    "before_zero.ts": ("x264_b3.ts", restamped(before_zero)),
    "before_zero.nut": ("x264_b3.mp4", restamped(before_zero)),
    "a_gap.mp4": ("x264_b3.mp4", restamped(half_an_hour_between)),
    "a_gap.mkv": ("x264_b3.mp4", restamped(half_an_hour_between)),
    "a_gap.ts": ("x264_b3.ts", restamped(half_an_hour_between)),
    "a_gap.flv": ("x264_b3.mp4", restamped(half_an_hour_between)),
    "back_to_the_start.mkv": ("x264_b3.mp4", restamped(back_to_the_start)),
    "back_to_the_start.mp4": ("x264_b3.mp4", restamped(back_to_the_start)),
    "back_to_the_start_mpeg2.ts": ("mpeg2.ts", restamped(back_to_the_start)),
    "one_time_for_two.mkv": ("x264_b3.mp4", restamped(in_pairs)),
    "one_time_for_two.mp4": ("x264_b3.mp4", restamped(in_pairs)),
    "one_time_for_two_no_b.mkv": ("x264_no_b.mp4", restamped(in_pairs)),
    "one_time_for_two_vp9.webm": ("vp9.webm", restamped(in_pairs)),
    "irregular.mkv": ("x264_b3.mp4", restamped(irregular)),
    "irregular.mp4": ("x264_b3.mp4", restamped(irregular)),
    "reversed_stamps.mkv": ("x264_no_b.mp4", restamped(reversed_stamps)),
    "reversed_stamps.mp4": ("x264_no_b.mp4", restamped(reversed_stamps)),
    "from_ts.mkv": ("x264_b3.ts", list),
    "from_ts.mp4": ("x264_open_gop.ts", list),
    "from_avi.mkv": ("x264_b3.avi", list),
    "hevc_from_ts.mp4": ("x265_open_gop.ts", list),
    "vp9.avi": ("vp9.webm", list),
    "av1.avi": ("av1.mp4", list),
    "hevc.flv": ("x265_open_gop.mp4", list),
    "fragmented.mp4": ("x264_b3.mp4", list, {"muxing": "movflags=frag_keyframe+empty_moov"}),
    "fragmented_dash.mp4": ("x264_open_gop.mp4", list, {"muxing": "movflags=dash+delay_moov frag_duration=300000"}),
    "fragmented_every_frame.mp4": ("x264_b3.mp4", list, {"muxing": "movflags=frag_every_frame+empty_moov"}),
    "fragmented_hevc.mp4": ("x265_open_gop.mp4", list, {"muxing": "movflags=frag_keyframe+default_base_moof"}),
    "index_first.mp4": ("x264_b3.mp4", list, {"muxing": "movflags=faststart"}),
    "no_edit_list.mp4": ("x264_b3.mp4", list, {"muxing": "use_editlist=0"}),
    "negative_offsets.mp4": ("x264_b3.mp4", list, {"muxing": "movflags=negative_cts_offsets"}),
    "clusters_of_three.mkv": ("x264_open_gop.mp4", list, {"muxing": "cluster_size_limit=400"}),
    "no_cues.mkv": ("x264_b3.mp4", list, {"muxing": "live=1"}),
    "dash.webm": ("vp9.webm", list, {"muxing": "dash=1"}),
    "as_dvd.mpg": ("mpeg2.mpg", list, {"container": "dvd"}),
    "as_vob.mpg": ("mpeg2.mpg", list, {"container": "vob"}),
    "as_m2ts.ts": ("x264_b3.ts", list, {"muxing": "mpegts_m2ts_mode=1"}),
    "noise.mkv": ("x264_b3.mp4", list, {"filtered": "noise=amount=400"}),
    "noise.ts": ("x264_b3.ts", list, {"filtered": "noise=amount=300"}),
    "noise_hevc.mkv": ("x265_open_gop.mp4", list, {"filtered": "noise=amount=300"}),
    "noise_mpeg4.avi": ("mpeg4_b.avi", list, {"filtered": "noise=amount=200"}),
    "noise_vp9.webm": ("vp9.webm", list, {"filtered": "noise=amount=2000"}),
    "noise_vp8.webm": ("vp8.webm", list, {"filtered": "noise=amount=2000"}),
    "noise_av1.mkv": ("av1.mkv", list, {"filtered": "noise=amount=300"}),
    "noise_mpeg2.ts": ("mpeg2.ts", list, {"filtered": "noise=amount=300"}),
}


def remuxed(path: Path, row: tuple) -> Path:
    return remux(base(path, row[0]), path, row[1], **(row[2] if len(row) > 2 else {}))


def encoded(path: Path, row: tuple) -> Path:
    return encode(path, *row)


VICIOUS: dict[str, Builder] = {
    **{name: partial(encoded, row=row) for name, row in ENCODED.items()},
    **{name: partial(remuxed, row=row) for name, row in REMUXED.items()},
    **SHAPED,
    **DAMAGED,
    **H26X,
    **STREAMS,
}

_EVERY_RUN = """
    x264_b3.mp4 x264_b3.mkv x264_b3.ts x264_b3.avi x264_b3.flv x264_b3.h264 x264_b8_pyramid_ref16.ts x264_open_gop.mp4
    x264_open_gop.mkv x264_intra_refresh.mkv x264_interlaced_tff.mp4 x264_cavlc.mp4 x264_10bit.mp4 x264_grey.mp4
    x264_intra_only.mkv x264_slices.mp4 x265_open_gop.mp4 x265_closed.mkv x265_layers.mp4 x265_radl.mkv x265_10bit.mp4
    vp8.webm vp8_alpha.webm vp9.webm vp9_layers.webm av1.mp4 av1_open_gop.mkv av1_grain.mp4 av1_s_frames.mp4 mpeg2.mpg
    mpeg2.ts mpeg4_b.mp4 mpeg4_b.avi mpeg4.mp4 mpeg4_interlaced.avi msmpeg4v3.avi wmv2.wmv flv1.flv h263p.avi gif.gif
    qtrle.mov palette.avi mjpeg.avi mjpeg.mkv png.mov ffv1_with_memory.mkv prores.mov
    all_keys_hevc.mkv no_keys.mp4 late_keys.mp4 cut_front.mkv cut_front.ts cut_front_open_gop.mkv cut_front_mpeg4.avi
    cut_front_hevc_to_its_key.mkv lost_reference.mkv lost_key.mkv lost_reference_hevc.mkv lost_reference_vp8.webm
    doubled_reference.mkv repeated_reference.mkv repeated_mpeg4.avi swapped.mkv swapped_data.mp4 swapped_data_mpeg4.mkv
    stamps_in_decode_order.mkv stamps_in_decode_order_mpeg4.mkv from_avi.mkv hours_later.mp4 before_zero.mp4
    before_zero.mkv a_gap.mkv back_to_the_start.mkv one_time_for_two.mkv irregular.mkv reversed_stamps.mkv
    fragmented.mp4 index_first.mp4 no_cues.mkv noise.mkv
    turned_90.mp4 turned_270.mp4 turned_90_flipped.mp4 wide_pixels.mp4 odd_63x47.mkv odd_65x33.mp4 one_frame.mp4
    one_frame.avi two_frames.webm variable_rate.mkv size_changes.mkv sampling_changes.ts coding_changes.mkv
    colours_change.ts two_files.ts sound_first.mkv two_videos.mkv cover_first.mp4 latin_title.avi latin_title.mp4
    stray_packet.ts unknown_coding.mp4
    damaged_key.x264_b3.mp4 shortened_others.x264_b3.mp4 shortened_others.mjpeg.mp4 damaged_others.vp9.webm
    cut.x264_b3.mkv cut.mpeg4_b.avi headless.x264_open_gop.ts
    by_hand.mp4 no_usability.mp4 reordered_unsaid_hevc.mp4
    halves.mkv pairs.mkv two_entries.mp4 edit_from_the_middle.mp4
    edit_twice_the_same.mp4 edit_with_a_pause.mp4 edit_hevc.mp4 empty_sample.mp4 shared_sample.mp4
    one_time_for_all.mp4 far_ones_exchanged_in_time.mp4 pts_of_decoding.mp4 first_slice_lost.mp4
    packed_b_frames.avi not_coded_and_more.avi quantisers_at_times.avi
    no_huffman_tables.avi fields.avi hidden_vp8.webm shown_again_vp9.webm shown_twice_in_one_vp9.webm two_units_av1.mkv
    exchanged_vp9.webm interleaved_mpeg4.mkv states_more.avi no_index.avi dropped_mjpeg.avi some_stamps.ts
    many_a_second.mkv
"""
EVERY_RUN = frozenset(_EVERY_RUN.split())
"""One or two of each kind; the others are tried by night."""
assert VICIOUS.keys() >= EVERY_RUN, EVERY_RUN - VICIOUS.keys()
