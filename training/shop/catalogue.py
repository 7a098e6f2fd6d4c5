"""What the shop sells and where it belongs: things, uses, and the four-level tree that they span.

A path is decided by a *thing* (what the photo shows) and a *use* (what the title says: for whom, for what). Six things
have one path whatever their use: the photo alone decides them. The other six stand in seven to nine paths each, which
part at the main category (a bottle for babies is feeding, one for camping is outdoor), so that there neither photo nor
title is enough. Paths end at level 2, 3 or 4; some nodes are both a stop and a parent.

Category words are shared by all splits. First in the shop; titles.py and photos.py speak of its things and uses.
"""

from dataclasses import dataclass
from functools import cache

from mmcat.taxonomy import Node, Path, Taxonomy

BOX = "box"  # the silhouette of a photo that shows only a parcel


@dataclass(frozen=True, slots=True)
class Words:
    """Names for one idea, most usual first."""

    korean: tuple[str, ...]
    english: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Category:
    """One path and what leads to it: the thing in the photo and the use in the title ("" where any use leads here)."""

    thing: str
    use: str
    ids: tuple[str, ...]

    @property
    def photo_decides(self) -> bool:
        """Whether the thing alone leads here."""
        return self.use == ""


THINGS: dict[str, Words] = {
    "shoe": Words(("운동화", "스니커즈", "신발"), ("sneakers", "shoes", "trainers")),
    "shirt": Words(("티셔츠", "반팔티", "셔츠"), ("t-shirt", "tee", "shirt")),
    "trousers": Words(("바지", "팬츠", "슬랙스"), ("trousers", "pants", "slacks")),
    "bag": Words(("가방", "백", "손가방"), ("bag", "handbag", "tote")),
    "bottle": Words(("물병", "보틀", "텀블러"), ("bottle", "flask", "tumbler")),
    "chair": Words(("의자", "체어", "좌석"), ("chair", "seat", "armchair")),
    "dress": Words(("원피스", "드레스"), ("dress", "gown")),
    "cap": Words(("모자", "볼캡"), ("cap", "hat")),
    "mug": Words(("머그컵", "머그"), ("mug", "cup")),
    "lamp": Words(("스탠드", "조명"), ("lamp", "light")),
    "umbrella": Words(("우산", "장우산"), ("umbrella", "parasol")),
    "guitar": Words(("기타", "통기타"), ("guitar", "acoustic")),
}
USES: dict[str, Words] = {
    "all": Words(("공용", "기본형"), ("unisex", "standard")),
    "men": Words(("남성", "남자"), ("men", "male")),
    "women": Words(("여성", "여자"), ("women", "ladies")),
    "kids": Words(("아동", "키즈"), ("kids", "children")),
    "baby": Words(("유아", "아기"), ("baby", "infant")),
    "outdoor": Words(("등산", "캠핑"), ("hiking", "camping")),
    "team": Words(("축구", "구단"), ("football", "team")),
    "work": Words(("작업", "현장"), ("workshop", "safety")),
    "office": Words(("사무", "오피스"), ("office", "desk")),
    "pet": Words(("강아지", "반려견"), ("dog", "puppy")),
    "travel": Words(("여행", "출장"), ("travel", "trip")),
    "school": Words(("학생", "학교"), ("school", "student")),
}

CORNERS: dict[str, Words] = {  # where in a photo of several things the one is that is sold
    "upper left": Words(("왼쪽위", "좌상단"), ("upper-left", "top-left")),
    "upper right": Words(("오른쪽위", "우상단"), ("upper-right", "top-right")),
    "lower left": Words(("왼쪽아래", "좌하단"), ("lower-left", "bottom-left")),
    "lower right": Words(("오른쪽아래", "우하단"), ("lower-right", "bottom-right")),
}

# id: Korean name, English name. A node's parent is its id without the last two digits.
_NODES: dict[str, tuple[str, str]] = {
    "10": ("패션의류", "Clothing"),
    "1001": ("상의", "Tops"),
    "100101": ("티셔츠", "T-shirts"),
    "10010101": ("남성 티셔츠", "Men's t-shirts"),
    "10010102": ("여성 티셔츠", "Women's t-shirts"),
    "1002": ("하의", "Bottoms"),
    "100201": ("바지", "Trousers"),
    "10020101": ("남성 바지", "Men's trousers"),
    "10020102": ("여성 바지", "Women's trousers"),
    "1003": ("원피스", "Dresses"),
    "1004": ("교복", "School uniform"),
    "100401": ("교복 바지", "Uniform trousers"),
    "20": ("패션잡화", "Accessories"),
    "2001": ("신발", "Shoes"),
    "200101": ("운동화", "Sneakers"),
    "20010101": ("남성 운동화", "Men's sneakers"),
    "20010102": ("여성 운동화", "Women's sneakers"),
    "2002": ("가방", "Bags"),
    "200201": ("남성 가방", "Men's bags"),
    "200202": ("여성 가방", "Women's bags"),
    "200203": ("학생 가방", "School bags"),
    "2003": ("모자", "Hats"),
    "200301": ("볼캡", "Caps"),
    "2004": ("우산", "Umbrellas"),
    "30": ("출산/육아", "Baby and kids"),
    "3001": ("아동 의류", "Kids' clothing"),
    "300101": ("아동 상의", "Kids' tops"),
    "300102": ("아동 하의", "Kids' bottoms"),
    "3002": ("아동 잡화", "Kids' accessories"),
    "300201": ("아동 신발", "Kids' shoes"),
    "300202": ("아동 가방", "Kids' bags"),
    "3003": ("유아 의류", "Baby clothing"),
    "300301": ("유아 상의", "Baby tops"),
    "300302": ("유아 하의", "Baby bottoms"),
    "3004": ("수유용품", "Feeding"),
    "300401": ("젖병", "Baby bottles"),
    "300402": ("유아 식탁의자", "High chairs"),
    "3005": ("아동 가구", "Kids' furniture"),
    "300501": ("아동 의자", "Kids' chairs"),
    "3006": ("걸음마 신발", "First shoes"),
    "3007": ("아동 물병", "Kids' bottles"),
    "3008": ("기저귀 가방", "Nappy bags"),
    "40": ("스포츠/레저", "Sports and leisure"),
    "4001": ("등산/캠핑", "Outdoor"),
    "400101": ("등산 의류", "Outdoor clothing"),
    "40010101": ("등산 셔츠", "Outdoor shirts"),
    "40010102": ("등산 바지", "Outdoor trousers"),
    "400102": ("등산화", "Hiking shoes"),
    "400103": ("등산 가방", "Backpacks"),
    "400104": ("캠핑 가구", "Camping furniture"),
    "40010401": ("캠핑 의자", "Camping chairs"),
    "400105": ("등산 물병", "Outdoor flasks"),
    "4002": ("축구", "Football"),
    "400201": ("축구화", "Football boots"),
    "400202": ("축구 의류", "Football clothing"),
    "40020201": ("유니폼 상의", "Jerseys"),
    "40020202": ("유니폼 하의", "Football shorts"),
    "400203": ("스포츠 물병", "Sports bottles"),
    "50": ("생활/주방", "Home and kitchen"),
    "5001": ("주방용품", "Kitchen"),
    "500101": ("컵", "Cups"),
    "50010101": ("머그컵", "Mugs"),
    "500102": ("물병", "Bottles"),
    "5002": ("조명", "Lighting"),
    "60": ("가구", "Furniture"),
    "6001": ("의자", "Chairs"),
    "600101": ("사무용 의자", "Office chairs"),
    "600102": ("학생 의자", "Study chairs"),
    "70": ("반려동물", "Pets"),
    "7001": ("강아지", "Dogs"),
    "700101": ("강아지 옷", "Dog clothes"),
    "700102": ("이동가방", "Carriers"),
    "700103": ("급수기", "Water bottles"),
    "80": ("산업/공구", "Tools and safety"),
    "8001": ("안전화", "Safety shoes"),
    "8002": ("작업복", "Workwear"),
    "800201": ("작업 바지", "Work trousers"),
    "8003": ("작업 의자", "Workshop stools"),
    "90": ("취미", "Hobby"),
    "9001": ("악기", "Instruments"),
    "900101": ("현악기", "Strings"),
    "90010101": ("기타", "Guitars"),
    "9002": ("여행용품", "Travel"),
    "900201": ("여행 가방", "Luggage"),
    "900202": ("여행 물병", "Travel flasks"),
}

# thing: use → stop node. Within a thing the first is the most common (Zipf); "" is any use.
_STOPS: dict[str, dict[str, str]] = {
    "shoe": {
        "men": "20010101", "women": "20010102", "kids": "300201", "all": "200101", "outdoor": "400102",
        "team": "400201", "work": "8001", "baby": "3006",
    },
    "shirt": {
        "women": "10010102", "all": "100101", "men": "10010101", "outdoor": "40010101", "kids": "300101",
        "pet": "700101", "team": "40020201", "baby": "300301",
    },
    "trousers": {
        "outdoor": "40010102", "men": "10020101", "work": "800201", "women": "10020102", "all": "100201",
        "school": "100401", "kids": "300102", "team": "40020202", "baby": "300302",
    },
    "bag": {
        "all": "2002", "school": "200203", "women": "200202", "travel": "900201", "baby": "3008", "men": "200201",
        "pet": "700102", "outdoor": "400103", "kids": "300202",
    },
    "bottle": {
        "baby": "300401", "team": "400203", "all": "500102", "kids": "3007", "pet": "700103", "travel": "900202",
        "outdoor": "400105",
    },
    "chair": {
        "office": "600101", "baby": "300402", "school": "600102", "outdoor": "40010401", "kids": "300501",
        "all": "6001", "work": "8003",
    },
    "dress": {"": "1003"},
    "cap": {"": "200301"},
    "mug": {"": "50010101"},
    "lamp": {"": "5002"},
    "umbrella": {"": "2004"},
    "guitar": {"": "90010101"},
}  # fmt: skip


@cache
def categories() -> tuple[Category, ...]:
    """All categories, most common first: the things take turns, so that no thing is the common one."""
    rows = [
        (rank, place, Category(thing, use, _ids(stop)))
        for place, (thing, stops) in enumerate(_STOPS.items())
        for rank, (use, stop) in enumerate(stops.items())
    ]
    return tuple(category for _, _, category in sorted(rows, key=lambda row: row[:2]))


@cache
def taxonomy() -> Taxonomy:
    """The tree of all categories, rows in the order of their ids; names are Korean and English."""
    return Taxonomy(_path(category.ids) for category in sorted(categories(), key=lambda category: category.ids))


def _ids(stop: str) -> tuple[str, ...]:
    return tuple(stop[:end] for end in range(2, len(stop) + 1, 2))


def _path(ids: tuple[str, ...]) -> Path:
    return tuple(Node(level, id_, " ".join(_NODES[id_])) for level, id_ in enumerate(ids, start=1))
