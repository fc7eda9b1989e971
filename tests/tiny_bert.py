"""A real tiny BERT with its WordPiece vocabulary, written to disk in a fraction of a second.

Tests load it through the same ``from_pretrained`` as `google-bert/bert-base-cased`, so no part of the loading is faked;
only the size differs (2 layers, 32 wide, about 700 word pieces) and the weights, which are random but seeded.
"""

import string
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# Common English words, then the words of reviews, then the endings that turn them into other words.
WORDS_AND_ENDINGS = """
the and of to was is it in for on with at by from as that this these those there here they them their we us our you your
he she his her him who which what when where why how my me be been being are were am have has had having do does did
done not no nor never none but or if so than then too very just only even also still again ever always often once soon
later all any some many much more most few less least little other another each every both either such same own an can
could will would shall should may might must about after before during while until since because though although however
over under up down out off into through across around near far away back front left right between without within along
against one two three four five six seven eight nine ten first second third last next new old young big small long short
high low year month week day night morning evening lunch time hour minute today tomorrow yesterday weekend monday
tuesday wednesday thursday friday saturday sunday birthday date man woman people person friend family kid child wife
husband mother father daughter son guy lady couple group owner go went gone come came get got give gave take took make
made see saw seen say said tell told ask know knew think thought want need like love hate feel felt find found look try
use work call leave stay sit stand walk drive wait order pay paid eat ate drink cook serve visit return recommend enjoy
expect hope wish seem keep put bring brought buy bought sell help start stop open close end finish turn move live show
hear talk speak read write run let set thank miss forget remember thing way place home house room door table chair floor
wall window bathroom kitchen bar patio street city town area corner car parking lot store shop mall hotel bed pool spa
salon hair nail cut doctor office dentist gym class school phone restaurant cafe diner pub club bistro bakery buffet
menu meal dish plate bowl cup glass bottle box bag breakfast brunch dinner dessert snack food drinks coffee tea water
beer wine cocktail juice soda milk ice cream cake pie cookie chocolate bread toast butter egg bacon ham cheese pizza
pasta burger sandwich wrap salad soup sauce salsa dip chip fries potato rice bean noodle sushi roll fish shrimp crab
lobster chicken beef steak pork rib turkey duck lamb meat taco burrito curry vegetable tomato onion pepper garlic
mushroom lettuce fruit apple lemon spice salt sugar oil flavor taste smell texture staff service server waiter waitress
host hostess bartender manager chef employee customer guest line counter seat reservation appointment price cost bill
check tip money dollar deal coupon special quality quantity portion size value amount number star review rating
experience atmosphere ambiance decor music noise light crowd view location vibe good better best great amazing awesome
excellent fantastic wonderful perfect outstanding superb delicious tasty fresh nice fine okay decent average fair solid
friendly polite kind helpful attentive quick fast prompt clean cozy warm hot bad worse worst terrible horrible awful
disgusting gross nasty rude slow dirty cold stale bland dry burnt raw soggy greasy salty sweet sour bitter spicy
overpriced expensive cheap poor disappointed disappointing mediocre boring crowded loud quiet empty full busy free ready
late early wrong sure true real whole half extra plain simple easy hard different favorite happy sad angry sorry glad
impressed honest definitely absolutely really pretty quite rather almost enough maybe probably actually finally truly
simply highly totally completely certainly unfortunately
##s ##es ##ed ##er ##ers ##est ##ing ##ings ##ly ##y ##ie ##ies ##ier ##ily ##ness ##ment ##ments ##ion ##ions ##tion
##ation ##able ##ible ##ful ##less ##al ##ial ##ic ##ical ##ity ##ous ##ive ##or ##en ##an ##ian ##ish ##ist ##ism ##age
##ance ##ence ##ant ##ent ##th ##st ##nd ##rd ##re ##le ##el ##ll ##ve ##te ##ate ##ize ##ise ##ck ##ch ##sh ##ss ##tt
##in ##on ##at ##ar ##ou ##ea ##ee ##oo ##ai ##un ##up ##out ##one ##ever ##where ##body ##thing ##self ##time ##man
"""


def vocabulary() -> list[str]:
    """All word pieces in the order of their ids.

    Every printable ASCII character is a piece, alone and inside a word, so no ordinary ASCII word becomes ``[UNK]``.

    Returns:
        The pieces without repeats; the special tokens have ids 0 to 4, ``[PAD]`` first.
    """
    letters = string.ascii_lowercase + string.digits
    inside_a_word = [f"##{letter}" for letter in letters]
    pieces = [*SPECIAL_TOKENS, *string.punctuation, *letters, *inside_a_word, *WORDS_AND_ENDINGS.split()]
    return list(dict.fromkeys(pieces))


def write_tiny_bert(folder: Path, *, num_labels: int | None = None, hidden_size: int = 32, seed: int = 0) -> Path:
    """Write a tiny uncased BERT and its tokenizer, as transformers itself saves them.

    The global random number generators are left as they were found.

    Args:
        folder: Where to write; made if it is missing.
        num_labels: Classes of the classification head; ``None`` writes a plain ``BertModel``, which has no such head.
        hidden_size: Width, a multiple of the 2 attention heads; the feed-forward layers are twice as wide.
        seed: Seed of the weights; the same seed gives the same weights.

    Returns:
        ``folder``, which holds config.json, model.safetensors, tokenizer.json and tokenizer_config.json.
    """
    pieces = vocabulary()
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=512,
    )
    # Weights are drawn on the CPU, so only its generator has to be put back; torch.manual_seed would seed GPUs as well.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if num_labels is None:
            model = BertModel(config)
        else:
            config.num_labels = num_labels
            model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    token_ids = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = BertTokenizer(vocab=token_ids, do_lower_case=True, model_max_length=config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    return folder
